#!lua flags=allow-oom
-- Drop what is old. ARGV: seconds that ids of the gone are remembered, then pairs of state and age (microseconds).
-- Answers how many jobs and marks were dropped, at most BATCH; PACE documents past theirs go beside.
local t, left = now(), BATCH
for n = 2, #ARGV, 2 do
  left = left - drop_over(ARGV[n], t - tonumber(ARGV[n + 1]), left)
end
left = left - trim(left)
if left > 0 then
  for _, key in ipairs(call('ZRANGE', P .. 'fading', '-inf', t, 'BYSCORE', 'LIMIT', 0, left)) do
    if not holder_of(key, t) then
      call('DEL', P .. 'm:' .. key)
    end
    call('ZREM', P .. 'fading', key)
    left = left - 1
  end
end
for _, name in ipairs(call('ZRANGE', P .. 'dd:pace', '-inf', t, 'BYSCORE', 'LIMIT', 0, BATCH)) do
  drop_doc('pace', name)
end
local gone = call('ZRANGE', P .. 'departed', '-inf', t - tonumber(ARGV[1]), 'BYSCORE', 'LIMIT', 0, BATCH)
if #gone > 0 then
  call('ZREM', P .. 'departed', unpack(gone))
end
return BATCH - left
