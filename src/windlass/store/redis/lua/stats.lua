#!lua flags=no-writes
-- Live jobs by line: (line, state, count, rank of the first), and before them the time.
local t = now()
local rows = {t}

local function add(line, state, count, first)
  local at = #rows
  rows[at + 1], rows[at + 2], rows[at + 3], rows[at + 4] = line, state, count, first
end

-- The lowest rank of a line: the first of each priority, by hops.
local function first_of(key)
  local first, from = t, '-'
  while true do
    local head = call('ZRANGE', key, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not head then
      return first
    end
    first = min(first, tonumber(sub(head, 4, ORDER)) or t)
    from = '(' .. sub(head, 1, 3) .. '~'
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
    overdue[job.line] = min(overdue[job.line] or t, job.rank)
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
      firsts[job.line] = min(firsts[job.line] or t, job.rank)
    end
  end
end
for line, count in pairs(counts) do
  add(line, 'running', count, firsts[line])
end
return rows
