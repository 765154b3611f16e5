-- Keeps or deletes a secret that is in a list, together with its entry there. With `was`, only
-- if the secret is still that one, so that a newer secret is not overwritten. Returns 1 or 0.

local key, list = K('vault', A.name), K('vault', A.list)
if A.was and call('GET', key) ~= A.was then return 0 end

local listed = { A.entry }
for _, entry in ipairs(decoded(call('GET', list) or '')) do
  if entry ~= A.entry then listed[#listed + 1] = entry end
end
if A.text then
  call('SET', key, A.text, 'PX', LIFE.vault)
else
  call('DEL', key)
  table.remove(listed, 1)
end
table.sort(listed)
call('SET', list, #listed > 0 and cjson.encode(listed) or '[]', 'PX', LIFE.vault)
return 1
