"""The errors that Slack's method pages list, and those that were seen besides them.

Source: the method references on docs.slack.dev, as collected by github slack-ruby/slack-api-ref
(MIT) on 2026-08-20. `OBSERVED` has errors that the pages lack, each with its source.
"""

from __future__ import annotations

from collections.abc import Mapping

_COMMON = """
    access_denied accesslimited account_inactive deprecated_endpoint ekm_access_denied
    enterprise_is_restricted fatal_error invalid_arg_name invalid_array_arg invalid_charset
    invalid_form_data invalid_post_type is_bot method_deprecated missing_post_type missing_scope
    no_permission not_allowed_token_type not_authed org_login_required ratelimited
    request_timeout service_unavailable team_added_to_org token_expired token_revoked
    two_factor_setup_required unknown_method
"""
COMMON = frozenset(_COMMON.split())
"""On every page."""

_OWN: Mapping[str, str] = {
    "agents.sessions.rename": """
        channel_not_found feature_disabled internal_error invalid_name is_archived name_taken
        not_authorized session_not_found thread_ts_not_allowed thread_ts_required
    """,
    "agents.sessions.setStatus": """
        channel_not_found feature_disabled internal_error invalid_status not_authorized
        thread_ts_not_allowed thread_ts_required user_not_found
    """,
    "apps.connections.open": """
        forbidden_team insecure_request internal_error invalid_auth missing_args
    """,
    "assistant.threads.setStatus": """
        channel_not_found invalid_thread_ts reserved_username
    """,
    "assistant.threads.setSuggestedPrompts": """
        channel_not_found invalid_thread_ts message_not_found not_agent_app
    """,
    "auth.test": """
        internal_error invalid_auth
    """,
    "chat.appendStream": """
        as_user_not_supported channel_not_found channel_type_not_supported
        duplicate_channel_not_found duplicate_message_not_found invalid_blocks invalid_chunks
        invalid_metadata_format invalid_metadata_schema is_archived message_limit_exceeded
        message_not_found message_not_in_streaming_state message_not_owned_by_app
        messages_tab_disabled messaging_processing_failed metadata_must_be_sent_from_app
        metadata_too_large msg_blocks_too_long msg_blocks_too_many no_text not_in_channel
        rate_limited restricted_action restricted_action_non_threadable_channel
        restricted_action_read_only_channel restricted_action_thread_locked
        restricted_action_thread_only_channel slack_connect_canvas_sharing_blocked
        slack_connect_file_link_sharing_blocked slack_connect_lists_sharing_blocked
        stopped_by_user team_not_found too_many_attachments too_many_contact_cards
    """,
    "chat.delete": """
        cant_delete_message channel_not_found message_not_found
    """,
    "chat.postEphemeral": """
        cannot_reply_to_message channel_not_found invalid_attachments invalid_blocks
        invalid_blocks_format is_archived markdown_text_conflict message_limit_exceeded
        messages_tab_disabled msg_too_long no_text not_in_channel restricted_action
        too_many_attachments user_not_in_channel
    """,
    "chat.postMessage": """
        app_access_restricted as_user_not_supported attachment_payload_limit_exceeded
        cannot_reply_to_message channel_not_found draft_already_deleted draft_already_sent
        draft_has_conflict draft_not_found duplicate_channel_not_found
        duplicate_message_not_found invalid_blocks invalid_blocks_format invalid_metadata_format
        invalid_metadata_schema is_archived markdown_text_conflict message_limit_exceeded
        messages_tab_disabled metadata_must_be_sent_from_app metadata_too_large
        missing_file_data msg_blocks_too_long no_text not_in_channel rate_limited
        restricted_action restricted_action_non_threadable_channel
        restricted_action_read_only_channel restricted_action_thread_locked
        restricted_action_thread_only_channel send_on_behalf_not_allowed
        slack_connect_canvas_sharing_blocked slack_connect_file_link_sharing_blocked
        slack_connect_lists_sharing_blocked team_not_found too_many_attachments
        too_many_contact_cards
    """,
    "chat.startStream": """
        channel_not_found channel_type_not_supported duplicate_channel_not_found
        duplicate_message_not_found invalid_blocks invalid_blocks_format invalid_chunks
        invalid_metadata_format invalid_metadata_schema is_archived message_limit_exceeded
        messages_tab_disabled messaging_processing_failed metadata_must_be_sent_from_app
        metadata_too_large missing_recipient_team_id missing_recipient_user_id
        msg_blocks_too_long msg_blocks_too_many no_text not_in_channel
        not_subscribed_to_message_stream_stopped rate_limited restricted_action
        restricted_action_non_threadable_channel restricted_action_read_only_channel
        restricted_action_thread_locked restricted_action_thread_only_channel
        slack_connect_canvas_sharing_blocked slack_connect_file_link_sharing_blocked
        slack_connect_lists_sharing_blocked team_not_found user_not_found
    """,
    "chat.stopStream": """
        as_user_not_supported attachment_payload_limit_exceeded cannot_reply_to_message
        channel_not_found channel_type_not_supported duplicate_channel_not_found
        duplicate_message_not_found invalid_blocks invalid_chunks invalid_metadata_format
        invalid_metadata_schema is_archived message_limit_exceeded message_not_found
        message_not_in_streaming_state message_not_owned_by_app messages_tab_disabled
        metadata_must_be_sent_from_app metadata_too_large missing_file_data msg_blocks_too_long
        msg_blocks_too_many no_text not_in_channel rate_limited restricted_action
        restricted_action_non_threadable_channel restricted_action_read_only_channel
        restricted_action_thread_locked restricted_action_thread_only_channel
        slack_connect_canvas_sharing_blocked slack_connect_file_link_sharing_blocked
        slack_connect_lists_sharing_blocked team_not_found too_many_attachments
        too_many_contact_cards
    """,
    "chat.update": """
        as_user_not_supported block_mismatch blocked_file_type cant_broadcast_message
        cant_update_message channel_not_found edit_window_closed external_channel_migrating
        file_deleted file_is_deleted file_not_found file_share_limit_reached invalid_attachments
        invalid_blocks invalid_blocks_format invalid_metadata_format invalid_metadata_schema
        is_inactive markdown_text_conflict max_file_sharing_exceeded message_limit_exceeded
        message_not_found metadata_must_be_sent_from_app metadata_too_large msg_too_long
        no_dual_broadcast_content_update no_text posting_to_channel_denied
        slack_connect_blocked_file_type slack_connect_canvas_sharing_blocked
        slack_connect_clip_sharing_blocked slack_connect_file_link_sharing_blocked
        slack_connect_file_upload_sharing_blocked streaming_state_conflict team_not_found
        too_many_attachments unable_to_share_files update_failed
    """,
    "conversations.history": """
        channel_is_limited_access channel_not_found invalid_cursor invalid_metadata_filter_keys
        invalid_ts_latest invalid_ts_oldest not_in_channel
    """,
    "conversations.info": """
        channel_is_limited_access channel_not_found
    """,
    "conversations.members": """
        channel_not_found fetch_members_failed invalid_cursor invalid_limit
        method_not_supported_for_channel_type
    """,
    "conversations.replies": """
        channel_not_found invalid_cursor invalid_metadata_filter_keys invalid_ts_latest
        invalid_ts_oldest list_record_comment_fetch_failed method_not_supported_for_channel_type
        thread_not_found
    """,
    "files.completeUploadExternal": """
        channel_not_found channels_limit_exceeded file_not_found file_type_not_allowed
        file_update_failed file_uploads_except_images_disabled invalid_blocks invalid_channel
        not_in_channel posting_to_channel_denied
    """,
    "files.getUploadURLExternal": """
        alt_txt_too_large file_type_not_allowed file_upload_size_restricted file_uploads_disabled
        file_uploads_except_images_disabled missing_argument snippet_too_large
        storage_limit_reached unknown_snippet_type unknown_subtype
    """,
    "users.list": """
        invalid_cursor limit_required missing_argument
    """,
    "oauth.v2.access": """
        bad_client_secret bad_redirect_uri cannot_install_an_org_installed_app invalid_client_id
        invalid_code invalid_code_verifier invalid_grant_type invalid_refresh_token no_scopes
        oauth_authorization_url_mismatch pkce_not_allowed preview_feature_not_available
        user_email_unverified
    """,
    "users.info": """
        too_many_users user_not_found user_not_visible
    """,
    "views.open": """
        duplicate_external_id exchanged_trigger_id expired_trigger_id invalid_trigger_id
        view_too_large
    """,
    "views.publish": """
        duplicate_external_id hash_conflict missing_profile_id not_enabled not_implemented
        view_too_large
    """,
}

_EVERYWHERE = frozenset(("invalid_auth", "invalid_arguments", "internal_error"))
"""Any method may return these; not every page lists them."""

# github NousResearch/hermes-agent pull 104173, app-vitals/shipwright pull 3057 (2026-09)
_MODES = frozenset({"cannot_provide_both_markdown_text_and_chunks", "streaming_mode_mismatch"})

OBSERVED: Mapping[str, frozenset[str]] = {
    # msg_too_long: github seratch/ChatGPT-in-Slack issue 102 (2024-10); thread_not_found: a guess
    "chat.postMessage": frozenset({"thread_not_found", "msg_too_long"}),
    "chat.postEphemeral": frozenset({"thread_not_found"}),
    "chat.startStream": frozenset({"thread_not_found", "msg_too_long"}) | _MODES,
    # github CopilotKit/CopilotKit pulls 6064 and 6244, openclaw/openclaw pull 143882 (2026-07)
    "chat.appendStream": frozenset({"msg_too_long"}) | _MODES,
    "chat.stopStream": frozenset({"msg_too_long"}) | _MODES,
    # the pages of the other methods with blocks have it
    "chat.update": frozenset({"msg_blocks_too_long"}),
    # the name is a guess
    "apps.connections.open": frozenset({"socket_mode_not_enabled"}),
}

PUBLISHED: Mapping[str, frozenset[str]] = {
    method: COMMON | frozenset(names.split()) for method, names in _OWN.items()
}


def is_known(method: str, error: str) -> bool:
    """Whether Slack may answer a call of `method` with `error`."""
    found = PUBLISHED.get(method, COMMON) | OBSERVED.get(method, frozenset())
    return error in found or error in _EVERYWHERE
