-- Moves of jobs between states, for the scripts that settle and hand back.
local AFTER = {succeeded = 's', failed = 'f', cancelled = 'c', retry = 'd', snoozed = 'd', interrupted = 'q', lost = 'q'}
local FINAL = {s = true, f = true, c = true}
local OUTCOME = 10 -- values of one outcome: id, fence, seq, ending, attempt, lost, delay, result, failure, reason

local function finish(job, state, t)
  job.state, job.finished = state, t
  later('ZADD', P .. 'over:' .. state, t, job.id)
  if job.flags % 2 == 1 then
    free(job.id)
  end
end

local function let_go(job)
  later('SREM', P .. 'held:' .. job.runner, job.id)
  if job.cancelling then
    later('SREM', P .. 'cancel:' .. job.runner, job.id)
  end
end

local function add_attempt(job, ending, t, failure)
  call('RPUSH', P .. 'a:' .. job.id,
    pack(job.fence, job.attempt, ending, job.runner, job.started, t, failure or nil))
end

local function apply(job, ending, delay, failure, t)
  local state = AFTER[ending]
  add_attempt(job, ending, t, failure)
  let_go(job)
  job.ending = ending
  if state == 'd' then
    job.due = t + delay
    job.rank = job.due
  end
  if FINAL[state] or job.cancelling then
    finish(job, FINAL[state] and state or 'c', t)
  else
    job.state = 'i'
    if state == 'd' then
      plan(job)
    else
      ready(job)
    end
  end
  save(job)
end

-- Apply outcomes under their fences; the ids of those that do not stand.
local function settle(runner, outcomes, t)
  local ids, refused, applied = {}, {}, {}
  for n = 1, #outcomes / OUTCOME do
    ids[n] = outcomes[(n - 1) * OUTCOME + 1]
  end
  local raws = mget(H, ids)
  local held, over = P .. 'held:' .. runner, P .. 'over:s'
  for n, id in ipairs(ids) do
    local at = (n - 1) * OUTCOME
    local ending, attempt = outcomes[at + 4], outcomes[at + 5]
    local raw, stands = raws[n], false
    if raw then
      local state, fence, seq, owner, flags, _, _, started, _, before_that, cancelling, due, _, _, progress, renewed =
        cmsgpack.unpack(raw)
      if fence == outcomes[at + 2] and seq == outcomes[at + 3] and owner == runner then
        if state ~= 'r' or applied[id] then
          stands = (applied[id] or before_that) == ending
        else
          stands, applied[id] = true, ending
          if ending == 'succeeded' then
            later('MSET', '', H .. id, pack('s', fence, seq, runner, flags, attempt, 0, started, t, ending, cancelling,
              due, nil, outcomes[at + 8] or nil, progress, renewed))
            later('ZADD', over, t, id)
            later('SREM', held, id)
            if cancelling then
              later('SREM', P .. 'cancel:' .. runner, id)
            end
            if flags % 2 == 1 then
              free(id)
            end
          else
            local job = load(id, raw)
            job.attempt, job.lost, job.reason = attempt, outcomes[at + 6], outcomes[at + 10] or nil
            apply(job, ending, outcomes[at + 7], outcomes[at + 9], t)
          end
        end
      end
    end
    if not stands then
      refused[#refused + 1] = id
    end
  end
  flush()
  return refused
end

-- Make ready what a runner holds, but for the claims in `keep` and those made after it; how many came back.
local function hand_back(runner, ending, t, keep)
  local ids = call('SMEMBERS', P .. 'held:' .. runner)
  local raws, back = mget(H, ids), 0
  for n, id in ipairs(ids) do
    local job = load(id, raws[n])
    if job and not (keep and (job.seq > keep.seq or keep.claims[id .. ' ' .. job.fence])) then
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
  local info = call('HGET', P .. 'runners', runner)
  if info then
    local _, worker = unpack_limit(info, 1)
    call('SREM', P .. 'crew:' .. worker, runner)
    call('HDEL', P .. 'runners', runner)
    call('HDEL', P .. 'seqs', runner)
  end
  call('ZADD', P .. 'departed', 'NX', t, runner)
  return hand_back(runner, ending, t)
end

local function depart_worker(worker, ending, t)
  for _, runner in ipairs(call('SMEMBERS', P .. 'crew:' .. worker)) do
    depart_runner(runner, ending, t)
  end
  call('HDEL', P .. 'workers', worker)
  call('ZREM', P .. 'leases', worker)
  call('ZADD', P .. 'departed', 'NX', t, worker)
end

-- Forget a job that waits nowhere any more.
local function drop(id, flags)
  if has_tags(flags) then
    local _, tags = unique_and_tags(id)
    for _, tag in ipairs(tags or {}) do
      later('ZREM', P .. 'tag:' .. tag, id)
    end
  end
  later('DEL', '', J .. id, H .. id)
  later('DEL', '', P .. 'a:' .. id)
  later('ZREM', ALL, id)
end

-- Drop finished jobs that are in over:<state> up to a moment, oldest first, at most `most`; how many.
local function drop_over(state, limit, most)
  if most <= 0 then
    return 0
  end
  local key = P .. 'over:' .. state
  local ids = call('ZRANGE', key, '-inf', limit, 'BYSCORE', 'LIMIT', 0, most)
  local raws = mget(H, ids)
  for n, id in ipairs(ids) do
    later('ZREM', key, id)
    local _, _, _, _, _, flags = unpack_limit(raws[n], 5)
    drop(id, flags)
  end
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
