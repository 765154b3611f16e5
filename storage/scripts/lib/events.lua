-- Reply events.

-- Appends a reply's first event. Nobody follows the reply yet, so it goes to no news stream.
local function emit_first(J, event)
  call('XADD', K('events', J), '*', 'e', event)
  touch('events', J)
end

-- How long an event stays in the news: followers that were away for longer read the reply's stream.
local NEWS_MS = 10000

-- Appends an event to the reply's own stream, and to the platform's news stream, which lives for
-- seconds. A news entry carries the event's index in the reply. The events of a one-off job are
-- deleted when it ends, so its news entries have no text, and the follower reads the stream.
local function emit(T, J, event)
  local _, _, platform = place_names(T)
  local events = K('events', J)
  local entry = call('XADD', events, 'MAXLEN', '~', 5000, '*', 'e', event)
  local number = call('XLEN', events)
  if number == 1 then touch('events', J) end -- the earlier ones have expired
  call('XADD', K('news', platform), 'MINID', now - NEWS_MS, '*', 'j', J, 'n', number, 'i', entry,
    'e', is_one_off(T) and '' or event)
end

local function characters(text)
  return select(2, string.gsub(text, '[^\128-\191]', ''))
end

local function first_characters(text, number)
  local at = 0
  for start in string.gmatch(text, '()[^\128-\191]') do
    if at == number then return string.sub(text, 1, start - 1) end
    at = at + 1
  end
  return text
end

-- The streamed text of a reply. A delta that was sent twice has the same offset.
local function shown_text(J)
  local text, length = '', 0
  for _, entry in ipairs(call('XRANGE', K('events', J), '-', '+')) do
    local event = decoded(entry[2][2])
    if event.t == 'started' then text, length = '', 0 end
    if event.t == 'delta' then
      if event.offset < length then text = first_characters(text, event.offset) end
      text = text .. event.text
      length = event.offset + characters(event.text)
    end
  end
  return text
end
