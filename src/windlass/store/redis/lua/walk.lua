#!lua flags=no-writes
-- A stretch of an index. ARGV: its name, 'up' or 'down', how many entries, filter, and the (score, id) to go on after.
-- Answers whether there is more, the last (score, id) looked at, and (score, id) of each job that matches.
local key, up, count, filter = P .. ARGV[1], ARGV[2] == 'up', tonumber(ARGV[3]), cmsgpack.unpack(ARGV[4])

-- How many members stand before (score, id), and whether it is there itself.
local function rank_of(score, id)
  local found = call('ZSCORE', key, id)
  if found and tonumber(found) == tonumber(score) then
    return call('ZRANK', key, id), 1
  end
  local low = call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + call('ZCOUNT', key, score, score)
  while low < high do
    local middle = floor((low + high) / 2)
    if before(call('ZRANGE', key, middle, middle)[1], id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low, 0
end

local first, last = 0, count - 1
if ARGV[5] then
  local rank, there = rank_of(ARGV[5], ARGV[6])
  if up then
    first = rank + there
  else
    first = call('ZCARD', key) - rank
  end
  last = first + count - 1
end
local entries = up and call('ZRANGE', key, first, last, 'WITHSCORES') or
  call('ZRANGE', key, first, last, 'REV', 'WITHSCORES')
local any = filter[1] or filter[2] or filter[3] or filter[4]
local found = {}
for n = 1, #entries, 2 do
  local job = not any or load(entries[n])
  if job == true or (job and matches(job, filter)) then
    found[#found + 1] = entries[n + 1]
    found[#found + 1] = entries[n]
  end
end
return {#entries == 2 * count and 1 or 0, entries[#entries] or '', entries[#entries - 1] or '', found}
