#!lua flags=allow-oom
-- Cancel ready and waiting jobs of a queue until so many of its jobs do not run yet; none, where that is not enough. ARGV:
-- queue, how many, the priority below which jobs may go (or empty), why. Answers how many are left, and the ids.
local queue, most, below, t = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now()
local depth, keys = 0, {}

local function ours(line)
  return string.match(line, '^[^/]*') == queue
end

for set, kind in pairs({[LINES] = 'l:', [WAITS] = 'x:'}) do
  for _, line in ipairs(call('SMEMBERS', set)) do
    if ours(line) then
      keys[#keys + 1] = P .. kind .. line
      depth = depth + call('ZCARD', P .. kind .. line)
    end
  end
end
local planned = call('HGETALL', P .. 'planned')
for n = 1, #planned, 2 do
  depth = depth + (ours(planned[n]) and tonumber(planned[n + 1]) or 0)
end

local count = min(depth - most, BATCH)
if count <= 0 then
  return {depth}
end

-- The first of each priority of a line by rank, which is when they were due but for those that stand behind; by hops.
local function first_due(key, found)
  local from = '-'
  while true do
    local head = call('ZRANGE', key, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not head then
      return
    end
    local priority = sub(head, 1, 3)
    for _, member in ipairs(call('ZRANGE', key, '[' .. priority, '(' .. priority .. '~', 'BYLEX', 'LIMIT', 0, count)) do
      found[#found + 1] = member
    end
    from = '(' .. priority .. '~'
  end
end

-- Those that stand behind, in the order in which they were due. Who is among the first of all is so among those of his kind,
-- with those that stand behind as of their rank.
local function first_behind(found)
  local key, from, left = behind_in(queue), 0, count
  while left > 0 do
    local ids = call('ZRANGE', key, from, from + left - 1)
    for _, id in ipairs(ids) do
      local job = load(id)
      if stands_behind(job) and ours(job.line) then
        found[#found + 1] = order(job.priority, job.rank + turns_of(job)) .. id
        left = left - 1
        from = from + 1
      else
        call('ZREM', key, id)
      end
    end
    if #ids == 0 then
      return
    end
  end
end

local found = {}
for _, key in ipairs(keys) do
  if below then
    local least = '(' .. format('%03d', 100 - below) .. '~'
    for _, member in ipairs(call('ZRANGE', key, '+', least, 'BYLEX', 'REV', 'LIMIT', 0, count)) do
      found[#found + 1] = member
    end
  else
    first_due(key, found)
  end
end
if not below then
  first_behind(found)
end
table.sort(found, function(a, b)
  if below then
    return before(b, a)
  end
  return before(sub(a, 4), sub(b, 4))
end)
local ids, met = {}, {}
for _, member in ipairs(found) do
  local id = sub(member, ORDER + 1)
  if not met[id] then
    met[id] = true
    ids[#ids + 1] = id
  end
end
if #ids < count then
  return {depth}
end

local answer = {depth}
for n = 1, count do
  local job = load(ids[n])
  if job and job.state == 'i' and cancel(job, ARGV[4], t) then
    answer[#answer + 1] = ids[n]
  end
end
flush()
answer[1] = depth - (#answer - 1)
trim(max(64, #answer))
ring('done')
return answer
