-- Moves of jobs between states, for the scripts that settle and hand back.
local AFTER = {succeeded = 's', failed = 'f', cancelled = 'c', retry = 'd', snoozed = 'd', interrupted = 'q', lost = 'q'}
local FINAL = {s = true, f = true, c = true}
local OUTCOME = 10 -- values of one outcome: id, fence, seq, ending, attempt, lost, delay, result, failure, reason

local NOTHING_MORE = {0, false, false, false, false, false, false, false, false, false, false, false}

-- The text of a job as `jobs` has it: without what is big.
local function keep(id, head, text)
  if #text > INLINE then
    later('HSET', BIG, id, text)
    return head
  end
  return head .. text
end

local function restore(job, past)
  job.attempt, job.lost, job.fence, job.started = past[2], past[3], past[4], past[5] or nil
  if #past > 5 then
    job.flags = job.flags + 8
  end
  for _, need in ipairs(job.fence > 0 and has(job.flags, 64) and gates_of(job.id, job.line, job.gated) or {}) do
    if need.keep then
      later('HSET', P .. 'holds:' .. need.gate, job.id, -need.weight)
    end
  end
  for n = 6, #past do
    local a = past[n]
    call('RPUSH', P .. 'a:' .. job.id, pack(a[1], a[2], a[3], a[4] or nil, a[5] or nil, a[6], a[7] or nil))
  end
  if job.attempt > 0 or job.lost > 0 or job.fence > 0 or #past > 5 then
    save(job)
  end
end

-- Put in a job. `more`: delay, moment, time to live, key, tags, past, what follows it, its gates, its turns (as in `turns`),
-- for how long it has the key, what becomes of another that has it, how long that is put off at most; false for none.
-- Answers its letter and when it is due.
local function insert(id, line, priority, more, text, t)
  local delay, run_at, expires_in, unique, tags, past, follow, gated, turns, unique_for = unpack(more)
  unique = not (unique_for and unique_for > 0) and unique -- a key that is held for a time is no business of the job's
  local due = run_at or t + delay
  local enqueued = past and past[1] or t
  local expires = expires_in and t + expires_in or nil
  local flags = (unique and 1 or 0) + (tags and 2 or 0) + (expires and 4 or 0) + (#text > INLINE and 16 or 0)
    + (follow and 32 or 0) + (gated and 64 or 0) + (unique and unique_for and 128 or 0) + (turns and 256 or 0)
  local job = {id = id, state = 'i', fence = 0, attempt = 0, lost = 0, flags = flags, line = line, priority = priority,
    due = due, rank = (past and due or max(t, due)) - (turns and turns[1] or 0), turns = turns or nil}
  if turns then
    call('HSET', TURNS, id, pack(turns[1], turns[2] or nil, turns[3], turns[4]))
    if due <= t then
      take_turn(job)
    end
  end
  job.first_rank = job.rank
  local head = pack(flags, enqueued, due, job.rank, expires, priority, line, unique or nil, tags or nil)
  later('HSET', JOBS, id, keep(id, head, text))
  later('ZADD', ALL, enqueued, id)
  for _, tag in ipairs(tags or {}) do
    later('ZADD', P .. 'tag:' .. tag, enqueued, id)
  end
  if follow then
    later('HSET', FOLLOW, id, follow)
  end
  if gated then
    job.gated = gated
    later('HSET', GATES, id, gated)
  end
  if past then
    job.due = nil
    restore(job, past)
    job.due = due
  end
  if expires and job.fence == 0 then
    later('ZADD', EXPIRING, expires, id)
  end
  if due > t then
    plan(job)
    return 'D', due
  end
  return ready(job) and 'W' or 'Q', due
end

-- Bytes as MessagePack has them; `pack` makes texts.
local function binary(text)
  local n = #text
  return string.char(198, floor(n / 16777216) % 256, floor(n / 65536) % 256, floor(n / 256) % 256, n % 256) .. text
end

local function texts_only(list)
  for _, one in ipairs(list) do
    if type(one) ~= 'string' then
      return false
    end
  end
  return #list > 0 and list
end

-- How far a job that follows another stands ahead, as in `turns`.
local function ahead_of(one)
  local ahead = tonumber(one.ahead) or 0
  return ahead ~= 0 and {ahead, false, 0, 0}
end

local rung = false

-- Make the jobs that follow one that ends in a state, whoever ended it. What nobody of ours wrote there makes none.
local function follow(id, fence, state, t)
  local fine, list = pcall(cjson.decode, call('HGET', FOLLOW, id) or '')
  for n, one in ipairs(fine and type(list) == 'table' and list or {}) do
    local name = format('%s.%.0f%s.%d', id, fence, state, n - 1)
    if type(one) == 'table' and type(one.on) == 'string' and type(one.queue) == 'string' and type(one.task) == 'string'
      and type(one.args) == 'string' and string.find(one.on, state, 1, true) and not call('ZSCORE', ALL, name) then
      local tags = type(one.tags) == 'table' and texts_only(one.tags)
      local options = type(one.options) == 'string' and binary(one.options) or pack(nil)
      insert(name, one.queue .. '/' .. one.task, tonumber(one.priority) or 0,
        {tonumber(one.delay) or 0, false, tonumber(one.expires) or false, false, tags, false,
          type(one.follow) == 'string' and one.follow, type(one.gates) == 'string' and one.gates, ahead_of(one)},
        binary(one.args) .. options, t)
      if not rung then
        ring('work')
        rung = true
      end
    end
  end
end

local function finish(job, state, t)
  if has(job.flags, 64) then
    left(job.id, job.stood, true)
  end
  job.state, job.finished, job.cancelling = state, t, nil
  later('ZADD', P .. 'over:' .. state, t, job.id)
  if has(job.flags, 1) then
    free(job.id)
  end
  if has(job.flags, 32) then
    follow(job.id, job.fence, state, t)
  end
end

-- End a job, or mark it if it runs; whether it could be.
local function cancel(job, reason, t)
  if FINAL[job.state] or job.cancelling then
    return false
  end
  job.reason = reason
  if job.state == 'r' then
    job.cancelling = 1
    later('SADD', P .. 'cancel:' .. (job.runner or ''), job.id)
  else
    leave(job)
    finish(job, 'c', t)
  end
  save(job)
  return true
end

local function let_go(job)
  later('SREM', P .. 'held:' .. job.runner, job.id)
  if job.cancelling then
    later('SREM', P .. 'cancel:' .. job.runner, job.id)
  end
end

local function add_attempt(job, ending, t, failure)
  if not has(job.flags, 8) then
    job.flags = job.flags + 8
  end
  call('RPUSH', P .. 'a:' .. job.id,
    pack(job.fence, job.attempt, ending, job.runner, job.started, t, failure or nil))
end

-- Whether a job has kept a gate: so it keeps its rank as well.
local function keeps(job)
  for _, need in ipairs(has(job.flags, 64) and gates_of(job.id, job.line) or {}) do
    if need.keep and call('HEXISTS', P .. 'holds:' .. need.gate, job.id) == 1 then
      return true
    end
  end
  return false
end

local function apply(job, ending, delay, failure, t)
  local state = AFTER[ending]
  add_attempt(job, ending, t, failure)
  let_go(job)
  job.ending = ending
  if state == 'd' then
    job.due = t + delay
    job.rank = keeps(job) and job.rank or job.due - turns_of(job)
  end
  if FINAL[state] or job.cancelling then
    local error = state == 'f' and class_of(failure)
    if error then
      later('ZADD', P .. 'error:' .. error, t, job.id)
    end
    finish(job, FINAL[state] and state or 'c', t)
  else
    job.state = 'i'
    if has(job.flags, 64) then
      left(job.id, job.stood, false)
    end
    if state == 'd' then
      plan(job)
    else
      ready(job)
    end
  end
  save(job)
end

-- What the records of many claims have in common: whose they are, and the two ends of the record of a success,
-- between which its result stands. Claims of one exchange mostly have the very same record.
local function common_record(raw, t)
  local one = {}
  local fine, state, fence, seq, runner, flags, _, lost, started, _, ending, cancelling, due, _, _, progress, renewed, rank =
    pcall(cmsgpack.unpack, raw)
  if not (fine and numbers(fence, flags)) then
    return one
  end
  one.running, one.fence, one.seq, one.runner, one.ending = state == 'r', fence, seq, runner, ending
  one.special = cancelling or has(flags, 1) or has(flags, 32) or has(flags, 64)
  one.follows, one.gated, one.lost = has(flags, 32), has(flags, 64), type(lost) == 'number' and lost > 0
  one.cancelling = cancelling
  one.tail = pack(progress, renewed, rank)
  one.head = function(attempt)
    if one.attempt ~= attempt then
      one.attempt = attempt
      one.begin = pack('s', fence, seq, runner, flags, attempt, 0, started, t, 'succeeded', nil, due, nil)
    end
    return one.begin
  end
  return one
end

local NONE = pack(nil)

-- Apply outcomes under their fences; the ids of those that do not stand.
local function settle(runner, outcomes, t)
  local ids, refused, applied, records = {}, {}, {}, {}
  for n = 1, #outcomes / OUTCOME do
    ids[n] = outcomes[(n - 1) * OUTCOME + 1]
  end
  local raws = hmget(NEWS, ids)
  local news, over, held, moment = {}, {}, {}, format('%.0f', t)

  local function succeed(id, one, attempt, result)
    news[#news + 1] = id
    news[#news + 1] = one.head(attempt) .. (result and pack(result) or NONE) .. one.tail
    over[#over + 1] = moment
    over[#over + 1] = id
    held[#held + 1] = id
    if one.special then
      if one.cancelling then
        later('SREM', P .. 'cancel:' .. runner, id)
      end
      free(id)
      if one.gated then
        local _, _, _, _, _, _, line = read(call('HGET', JOBS, id), 7)
        left(id, tostring(line) .. (one.lost and '!' or ''), true)
      end
      if one.follows then
        follow(id, one.fence, 's', t)
      end
    end
  end

  local function settle_one(id, raw, at)
    local one = records[raw]
    if not one then
      one = common_record(raw, t)
      records[raw] = one
    end
    local ending = outcomes[at + 4]
    if one.fence ~= outcomes[at + 2] or one.seq ~= outcomes[at + 3] or one.runner ~= runner then
      return false
    elseif applied[id] or not one.running then
      return (applied[id] or one.ending) == ending
    end
    applied[id] = ending
    if ending == 'succeeded' then
      succeed(id, one, outcomes[at + 5], outcomes[at + 8])
    else
      local job = load(id, raw)
      job.attempt, job.lost, job.reason = outcomes[at + 5], outcomes[at + 6], outcomes[at + 10] or nil
      apply(job, ending, outcomes[at + 7], outcomes[at + 9], t)
    end
    return true
  end

  for n, id in ipairs(ids) do
    if not (raws[n] and settle_one(id, raws[n], (n - 1) * OUTCOME)) then
      refused[#refused + 1] = id
    end
  end
  send('HSET', NEWS, news, #news)
  send('ZADD', P .. 'over:s', over, #over)
  send('SREM', P .. 'held:' .. runner, held, #held)
  flush()
  return refused
end

-- Make ready what a runner holds, but for the claims in `keep` and those made after it; how many came back.
local function hand_back(runner, ending, t, keep)
  local ids = call('SMEMBERS', P .. 'held:' .. runner)
  local raws, back = hmget(NEWS, ids), 0
  for n, id in ipairs(ids) do
    local job = load(id, raws[n])
    if job and not (keep and ((job.seq or 0) > keep.seq or keep.claims[id .. ' ' .. job.fence])) then
      job.runner = runner
      add_attempt(job, ending, t)
      let_go(job)
      job.runner = nil
      if ending == 'lost' then
        job.lost = max(1, job.lost)
      end
      if job.cancelling then
        finish(job, 'c', t)
      else
        job.state, job.reason = 'i', nil
        if has(job.flags, 64) then
          left(job.id, job.stood, false)
        end
        ready(job)
      end
      save(job)
      back = back + 1
    end
  end
  flush()
  return back
end

local function depart_runner(runner, ending, t)
  local worker = read(call('HGET', P .. 'runners', runner), 1)
  if type(worker) == 'string' then
    call('SREM', P .. 'crew:' .. worker, runner)
  end
  call('HDEL', P .. 'runners', runner)
  call('HDEL', P .. 'seqs', runner)
  call('ZADD', P .. 'departed', 'NX', t, runner)
  return hand_back(runner, ending, t)
end

local function depart_worker(worker, ending, t)
  for _, runner in ipairs(call('SMEMBERS', P .. 'crew:' .. worker)) do
    depart_runner(runner, ending, t)
  end
  call('DEL', P .. 'crew:' .. worker)
  call('HDEL', P .. 'workers', worker)
  call('ZREM', P .. 'leases', worker)
  call('ZADD', P .. 'departed', 'NX', t, worker)
end

-- For how long a worker lives without a beat; nil if it is not registered, or its record is damaged.
local function lease_of(worker)
  local lease = read(call('HGET', P .. 'workers', worker), 1)
  return type(lease) == 'number' and lease or nil
end

-- The worker whose lease ends last, if no beat of now could make it so, as the clock was set back; and when it would end.
-- A lease without a record is over.
local function ahead(pulse)
  local last = call('ZRANGE', P .. 'leases', -1, -1, 'WITHSCORES')
  if last[1] then
    local lease = lease_of(last[1])
    local till = lease and pulse + lease or 0
    if tonumber(last[2]) > till then
      return last[1], till
    end
  end
end

-- Forget a job that waits nowhere any more.
local function drop(id, flags)
  if has(flags, 2) then
    local _, tags = unique_and_tags(id)
    for _, tag in ipairs(tags or {}) do
      later('ZREM', P .. 'tag:' .. tag, id)
    end
  end
  if has(flags, 8) then
    call('DEL', P .. 'a:' .. id)
  end
  if has(flags, 16) then
    later('HDEL', BIG, id)
  end
  if has(flags, 32) then
    later('HDEL', FOLLOW, id)
  end
  if has(flags, 64) then
    later('HDEL', GATES, id)
  end
  if has(flags, 256) then
    later('HDEL', TURNS, id)
  end
  later('HDEL', JOBS, id)
  later('HDEL', NEWS, id)
  later('ZREM', ALL, id)
end

-- Drop finished jobs that are in over:<state> up to a moment, oldest first, at most `most`; how many.
local function drop_over(state, limit, most)
  if most <= 0 then
    return 0
  end
  local key = P .. 'over:' .. state
  local ids = call('ZRANGE', key, '-inf', limit, 'BYSCORE', 'LIMIT', 0, most)
  if #ids == 0 then
    return 0
  end
  for n, raw in ipairs(hmget(NEWS, ids)) do
    local _, _, _, _, flags = read(raw, 5)
    forget_error(ids[n], state)
    drop(ids[n], type(flags) == 'number' and flags or 0)
  end
  call('ZREMRANGEBYRANK', key, 0, #ids - 1)
  flush()
  return #ids
end

-- Keep the history within HISTORY jobs: drop the oldest, at most `most`; how many.
local function trim(most)
  local total, dropped = 0, 0
  for state in pairs(FINAL) do
    total = total + call('ZCARD', P .. 'over:' .. state)
  end
  most = min(most, total - HISTORY)
  while dropped < most do
    local oldest, first, second = nil, nil, '+inf'
    for state in pairs(FINAL) do
      local head = call('ZRANGE', P .. 'over:' .. state, 0, 0, 'WITHSCORES')
      local score = tonumber(head[2])
      if score and (not first or score < first) then
        oldest, first, second = state, score, first or second
      elseif score then
        second = second == '+inf' and score or min(second, score)
      end
    end
    dropped = dropped + drop_over(oldest, second, most - dropped)
  end
  return dropped
end
