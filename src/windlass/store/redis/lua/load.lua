#!lua flags=no-writes
-- The documents of a kind, as name and value; with ARGV[2], those that are due, earliest first.
local kind = ARGV[1]
if ARGV[2] ~= '1' then
  return call('HGETALL', P .. 'd:' .. kind)
end
local found = {}
for _, name in ipairs(call('ZRANGE', P .. 'dd:' .. kind, '-inf', now(), 'BYSCORE')) do
  found[#found + 1] = name
  found[#found + 1] = call('HGET', P .. 'd:' .. kind, name)
end
return found
