"""The classes and sentences of Slack's error codes."""

from __future__ import annotations

from collections.abc import Sequence

from bots.slack.settings import APP

BOT_TOKEN_FAULTS = {
    "not_authed": "is empty",
    "invalid_auth": "is not a token that Slack knows",
    "token_revoked": "was revoked",
    "token_expired": "has expired",
    "account_inactive": "belongs to an app that was taken out of the workspace",
}


def _codes(words: str) -> frozenset[str]:
    return frozenset(words.split())


# The published errors of every method that the bot calls, each in one class. Source: the method
# references on docs.slack.dev, 2026-08-20. A test holds the classes against the published lists.
# Two of `WRONG_CALL` were seen and are not published (see `streams`):
# cannot_provide_both_markdown_text_and_chunks and streaming_mode_mismatch.

TEMPORARY = _codes(
    "accesslimited draft_has_conflict external_channel_migrating fatal_error fetch_members_failed "
    "file_update_failed hash_conflict internal_error list_record_comment_fetch_failed "
    "messaging_processing_failed rate_limited ratelimited request_timeout service_unavailable "
    "team_added_to_org update_failed"
)
"""A retry may help."""

CANNOT_POST_HERE = _codes(
    "app_access_restricted cannot_reply_to_message channel_is_limited_access channel_not_found "
    "channel_type_not_supported ekm_access_denied invalid_channel is_archived is_inactive "
    "message_limit_exceeded messages_tab_disabled method_not_supported_for_channel_type "
    "no_permission not_authorized not_in_channel restricted_action "
    "restricted_action_non_threadable_channel restricted_action_read_only_channel "
    "restricted_action_thread_locked restricted_action_thread_only_channel "
    "slack_connect_canvas_sharing_blocked slack_connect_file_link_sharing_blocked "
    "slack_connect_lists_sharing_blocked thread_not_found user_not_in_channel"
)
"""The bot cannot post in this channel or thread."""

ABOUT_THE_PERSON = _codes(
    "missing_recipient_team_id missing_recipient_user_id user_not_found user_not_visible"
)
"""The call cannot be made for this person."""

ABOUT_THE_MESSAGE = _codes(
    "block_mismatch cant_broadcast_message cant_delete_message cant_update_message "
    "edit_window_closed message_not_found message_not_in_streaming_state message_not_owned_by_app "
    "session_not_found stopped_by_user streaming_state_conflict"
)
"""The call cannot be made for this message."""

STREAM_IS_OVER = _codes("message_not_in_streaming_state stopped_by_user")
CANNOT_EDIT = _codes("block_mismatch cant_update_message edit_window_closed")

TOO_LONG = _codes("msg_blocks_too_long msg_blocks_too_many msg_too_long")
"""The text is sent again in smaller messages."""

CANNOT_DISPLAY = _codes("invalid_blocks invalid_blocks_format")
"""Slack cannot render the blocks: the message is sent again as plain text."""

ABOUT_THE_APP = _codes(
    "access_denied account_inactive bad_client_secret bad_redirect_uri "
    "cannot_install_an_org_installed_app enterprise_is_restricted feature_disabled forbidden_team "
    "invalid_auth invalid_client_id is_bot missing_scope no_scopes not_agent_app "
    "not_allowed_token_type not_authed not_enabled not_implemented "
    "oauth_authorization_url_mismatch org_login_required pkce_not_allowed "
    "preview_feature_not_available team_not_found token_expired token_revoked "
    "two_factor_setup_required user_email_unverified"
)
"""The app's token, its settings or the workspace prevent every post."""

WRONG_CALL = _codes(
    "alt_txt_too_large as_user_not_supported attachment_payload_limit_exceeded blocked_file_type "
    "cannot_provide_both_markdown_text_and_chunks channels_limit_exceeded deprecated_endpoint "
    "draft_already_deleted draft_already_sent draft_not_found duplicate_channel_not_found "
    "duplicate_external_id duplicate_message_not_found exchanged_trigger_id expired_trigger_id "
    "file_deleted file_is_deleted file_not_found file_share_limit_reached file_type_not_allowed "
    "file_upload_size_restricted file_uploads_disabled file_uploads_except_images_disabled "
    "insecure_request invalid_arg_name invalid_arguments invalid_array_arg invalid_attachments "
    "invalid_charset invalid_chunks invalid_code invalid_code_verifier invalid_cursor "
    "invalid_form_data invalid_grant_type invalid_limit invalid_metadata_filter_keys "
    "invalid_metadata_format invalid_metadata_schema invalid_name invalid_post_type "
    "invalid_refresh_token invalid_status invalid_thread_ts invalid_trigger_id invalid_ts_latest "
    "invalid_ts_oldest limit_required markdown_text_conflict max_file_sharing_exceeded "
    "metadata_must_be_sent_from_app metadata_too_large method_deprecated missing_args "
    "missing_argument missing_file_data missing_post_type missing_profile_id name_taken "
    "no_dual_broadcast_content_update no_text not_subscribed_to_message_stream_stopped "
    "posting_to_channel_denied reserved_username send_on_behalf_not_allowed "
    "slack_connect_blocked_file_type slack_connect_clip_sharing_blocked "
    "slack_connect_file_upload_sharing_blocked snippet_too_large storage_limit_reached "
    "streaming_mode_mismatch thread_ts_not_allowed thread_ts_required too_many_attachments "
    "too_many_contact_cards too_many_users unable_to_share_files unknown_method "
    "unknown_snippet_type unknown_subtype view_too_large"
)
"""The same call will be refused again, wherever it is made."""

FINAL = (
    CANNOT_POST_HERE
    | ABOUT_THE_PERSON
    | ABOUT_THE_MESSAGE
    | TOO_LONG
    | CANNOT_DISPLAY
    | ABOUT_THE_APP
    | WRONG_CALL
)
"""A retry does not help. An error in no class is retried."""


def bot_token_sentence(error: str) -> str:
    """What to do about a bot token that Slack refuses."""
    fault = BOT_TOKEN_FAULTS.get(error, f"is refused by Slack ({error})")
    return (
        f"SLACK_BOT_TOKEN {fault}: {APP}: Install App > Reinstall to Workspace, and copy it again"
    )


def missing_scopes(scopes: Sequence[str]) -> str:
    """What to do about missing scopes."""
    return (
        f"the app lacks {', '.join(scopes)}: {APP}: OAuth & Permissions > Scopes > Add an "
        "OAuth Scope, then Install App > Reinstall to Workspace"
    )


def sentence(error: str, needed: str = "") -> str:
    """What an error code means, and what to click where that helps."""
    if error in BOT_TOKEN_FAULTS:
        return bot_token_sentence(error)
    if error == "missing_scope" and needed:
        return missing_scopes([needed])
    return f"Slack answers {error}"
