-- Where idle jobs stand: ready in their line, scheduled, or waiting for their gates.
--
-- A ready job is in l:<line>, one that waits in x:<line>; `lines` and `waits` are the lines that have some. Jobs of one line
-- with the same needs are a group, named "<line>\n<needs>": w:<group> has all of them, whether they wait or are ready.
-- holds:<gate> has who takes how much of it, by id: below zero if that is kept until its end; by "~" and the id, whose place
-- is kept that asks for it again (Store.rest). What the next exchange looks
-- at: `stirred`, groups to which something came or from which it went; `freed`, gates by the moment from which they may have
-- room, and `since`, when such a moment was written that lay ahead.

local needs_known = {}

local function read_needs(text)
  local fine, list = pcall(cjson.decode, text)
  if not fine or type(list) ~= 'table' or string.find(text, '\n', 1, true) then
    return {}
  end
  local needs = {}
  for n, one in ipairs(list) do
    local gate, weight, keep = nil, nil, nil
    if type(one) == 'table' then
      gate, weight, keep = one[1], one[2] or 1, one[3] or false
    end
    if type(gate) ~= 'string' or type(weight) ~= 'number' or weight > 2 ^ 31 or type(keep) ~= 'boolean' then
      return {}
    end
    needs.keep, needs.heavy = needs.keep or keep, needs.heavy or weight > 1
    needs[n] = {gate = gate, weight = max(1, floor(weight)), keep = keep}
  end
  return needs
end

-- What a job takes of which gates, of the text that tells; nothing, if nobody of ours wrote that.
local function needs_of(text)
  if not text then
    return {}
  end
  needs_known[text] = needs_known[text] or read_needs(text)
  return needs_known[text]
end

-- The gates of a job, and their text, if that was not read already; none of one whose line is no name of ours.
local function gates_of(id, line, text)
  text = text or call('HGET', GATES, id)
  local needs = text and not string.find(line, '\n', 1, true) and needs_of(text) or {}
  return needs, text
end

-- Have a gate looked at now.
local function free_gate(gate)
  later('ZADD', FREED, 0, gate)
end

-- When a gate is to be looked at next, at the earliest now; nil if at none.
local function next_look(t)
  if call('EXISTS', STIRRED, FREED) == 0 then
    return nil
  end
  if call('EXISTS', STIRRED) == 1 or call('ZCOUNT', SINCE, '(' .. format('%.0f', t), '+inf') > 0 then
    return t
  end
  return max(t, tonumber(call('ZRANGE', FREED, 0, 0, 'WITHSCORES')[2]))
end

-- A job of a line has stopped to run, is over, or is put off: there is room at its gates, and maybe its place for the next.
local function left(id, line, over)
  local needs, text = gates_of(id, line)
  for _, need in ipairs(needs) do
    if over or not need.keep then
      later('HDEL', P .. 'holds:' .. need.gate, id)
    end
    later('HDEL', P .. 'holds:' .. need.gate, '~' .. id)
    free_gate(need.gate)
  end
  if #needs > 0 then
    later('SADD', STIRRED, line .. '\n' .. text)
  end
end

-- Let a job that passes gates wait for them. A job whose gates cannot be read does not.
local function wait(job, line, member)
  local needs, text = gates_of(job.id, line, job.gated)
  if #needs == 0 then
    return false
  end
  local group = line .. '\n' .. text
  later('ZADD', P .. 'w:' .. group, 0, member)
  later('ZADD', P .. 'x:' .. line, 0, member)
  later('SADD', STIRRED, group)
  waited[line] = true
  return true
end

-- By how much a job stands ahead of others; whose turn it takes, if anybody's, and how far apart those are.
local function turns_of(job)
  if has(job.flags, 256) and not job.turns then
    job.turns = {read(call('HGET', TURNS, job.id), 3)}
  end
  local ahead, key, turn = unpack(job.turns or {}, 1, 3)
  if type(ahead) ~= 'number' then
    return 0
  end
  return ahead, type(key) == 'string' and type(turn) == 'number' and key, turn
end

-- The fair jobs of a queue and priority that are ready or wait, by rank, and those of one key.
local function fair_sets(line, priority, key)
  local all = P .. 'f:' .. string.match(line, '^[^/]*') .. '\n' .. format('%.0f', priority)
  return all, all .. '\n' .. key
end

-- Give a fair job that comes to stand in line the rank of its turn.
local function take_turn(job)
  local _, key, turn = turns_of(job)
  if not key then
    return false
  end
  local all, own = fair_sets(job.line, job.priority, key)
  local first = tonumber(call('ZRANGE', all, 0, 0, 'WITHSCORES')[2] or nil)
  local last = tonumber(call('ZRANGE', own, -1, -1, 'WITHSCORES')[2] or nil)
  job.rank = max(first or job.rank, last and last + turn or 0)
  return true
end

-- Those of a queue that stand behind, by when they were due.
local function behind_in(queue)
  return P .. 'behind:' .. queue
end

-- Let a fair job stand among those that others look at, and one that stands behind among those that are lifted.
local function queue_up(job)
  local ahead, key = turns_of(job)
  if ahead < 0 then
    call('ZADD', BEHIND, job.rank, job.id)
    call('ZADD', behind_in(string.match(job.line, '^[^/]*')), job.rank + ahead, job.id)
  end
  for _, set in ipairs(key and {fair_sets(job.line, job.priority, key)} or {}) do
    call('ZADD', set, job.rank, job.id)
  end
end

-- The way back.
local function drop_out(job)
  local ahead, key = turns_of(job)
  if ahead < 0 then
    call('ZREM', BEHIND, job.id)
    call('ZREM', behind_in(string.match(job.line, '^[^/]*')), job.id)
  end
  for _, set in ipairs(key and {fair_sets(job.line, job.priority, key)} or {}) do
    call('ZREM', set, job.id)
  end
end

-- Whether a job stands in line, and behind. Versions that knew no lift, and who takes a job away by hand, leave entries.
local function stands_behind(job)
  return job and job.state == 'i' and turns_of(job) < 0 and not call('ZSCORE', DUE, job.id)
    and numbers((read(call('HGET', JOBS, job.id), 1)))
end

-- Let a job be ready, or wait if it passes gates; whether it waits.
local function ready(job)
  local line, member = line_of(job), order(job.priority, job.rank) .. job.id
  if has(job.flags, 256) then
    queue_up(job)
  end
  if has(job.flags, 64) and wait(job, line, member) then
    return true
  end
  later('ZADD', P .. 'l:' .. line, 0, member)
  touched[line] = true
  return false
end

-- Scheduled jobs are counted by line, for `stats`.
local function count_planned(line, change)
  counts[line] = (counts[line] or 0) + change
end

local function plan(job)
  later('ZADD', DUE, job.due, job.id)
  count_planned(job.line, 1)
end

-- Take a job from its line, where it is ready or waits.
local function step_out(job, line, member)
  later('ZREM', P .. 'l:' .. line, member)
  touched[line] = true
  if has(job.flags, 64) then
    local _, text = gates_of(job.id, line)
    if text then
      later('ZREM', P .. 'w:' .. line .. '\n' .. text, member)
    end
    later('ZREM', P .. 'x:' .. line, member)
    waited[line] = true
  end
  if has(job.flags, 256) then
    drop_out(job)
  end
end

-- Take an idle job from where it is; whether it was scheduled.
local function step_away(job)
  if call('ZREM', DUE, job.id) == 1 then
    count_planned(job.line, -1)
    return true
  end
  step_out(job, line_of(job), order(job.priority, job.rank) .. job.id)
  return false
end

-- The same of one that will not come back as it is.
local function leave(job)
  step_away(job)
  if has(job.flags, 4) then
    later('ZREM', EXPIRING, job.id)
  end
end
