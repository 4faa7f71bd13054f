#!lua flags=no-writes
-- Live jobs by line: (line, state, count, when the first became due), and before them the time. ARGV: how many in front of
-- a line, of each priority, are looked at for the first.
local t = now()
local rows = {t}

local function add(line, state, count, first)
  local at = #rows
  rows[at + 1], rows[at + 2], rows[at + 3], rows[at + 4] = line, state, count, first
end

local turning = call('EXISTS', TURNS) == 1

-- By how much a job stands in front of those that are due when it is.
local function ahead_of(turn)
  return turn and tonumber((read(turn, 1))) or 0
end

local function due_of(job)
  return job.rank + (turning and ahead_of(call('HGET', TURNS, job.id)) or 0)
end

-- When the first of a line became due, of those in front: of each priority, by hops.
local function first_of(key)
  local first, from = t, '-'
  while true do
    local head = call('ZRANGE', key, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not head then
      return first
    end
    local priority = sub(head, 1, 3)
    from = '(' .. priority .. '~'
    if turning then
      local members = call('ZRANGE', key, '[' .. priority, from, 'BYLEX', 'LIMIT', 0, ARGV[1])
      local ids = {}
      for n, member in ipairs(members) do
        ids[n] = sub(member, ORDER + 1)
      end
      for n, turn in ipairs(hmget(TURNS, ids)) do
        first = min(first, (tonumber(sub(members[n], 4, ORDER)) or t) + ahead_of(turn))
      end
    else
      first = min(first, tonumber(sub(head, 4, ORDER)) or t)
    end
  end
end

for _, line in ipairs(call('SMEMBERS', LINES)) do
  add(line, 'ready', call('ZCARD', P .. 'l:' .. line), first_of(P .. 'l:' .. line))
end
for _, line in ipairs(call('SMEMBERS', WAITS)) do
  add(line, 'waiting', call('ZCARD', P .. 'x:' .. line), first_of(P .. 'x:' .. line))
end

local overdue = {}
for _, id in ipairs(call('ZRANGE', DUE, '-inf', t, 'BYSCORE', 'LIMIT', 0, BATCH)) do
  local job = load(id)
  if job then
    overdue[job.line] = min(overdue[job.line] or t, due_of(job))
  end
end
local planned = call('HGETALL', P .. 'planned')
for n = 1, #planned, 2 do
  add(planned[n], 'scheduled', tonumber(planned[n + 1]), overdue[planned[n]] or t)
end

local counts, firsts = {}, {}
for _, runner in ipairs(call('HKEYS', P .. 'runners')) do
  for _, id in ipairs(call('SMEMBERS', P .. 'held:' .. runner)) do
    local job = load(id)
    if job then
      counts[job.line] = (counts[job.line] or 0) + 1
      firsts[job.line] = min(firsts[job.line] or t, due_of(job))
    end
  end
end
for line, count in pairs(counts) do
  add(line, 'running', count, firsts[line])
end
return rows
