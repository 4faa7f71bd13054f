#!lua flags=allow-oom
-- Hand in what is finished and take what fits. ARGV: runner, seq, outcomes, demand (slots, lanes, quotas).
-- Answers 'evicted', or microseconds until the next job is due (-1: none is), the ids refused, the claims, and whether
-- this is a repeat.
local runner, seq = ARGV[1], tonumber(ARGV[2])
local last = tonumber(call('HGET', P .. 'seqs', runner) or nil)
if not last then
  return 'evicted'
end
local t = now()
local outcomes, demand = cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
local held = P .. 'held:' .. runner

-- What this exchange claimed before and its runner still holds.
local function again()
  local ids, claims = call('SMEMBERS', held), {}
  local raws = hmget(NEWS, ids)
  for n, id in ipairs(ids) do
    local _, _, at = read(raws[n], 3)
    if at == seq then
      claims[#claims + 1] = id
      claims[#claims + 1] = whole(id, call('HGET', JOBS, id))
      claims[#claims + 1] = raws[n]
    end
  end
  return claims
end

-- What `news` has of a job that is claimed now. Those claimed for the first time have it in common.
local first_claims = {}

local function running(cold, raw)
  local fine, state, fence, _, _, bits, attempt, lost, _, finished, ending, cancelling, due, reason, result, _, renewed =
    false, nil
  if raw then
    fine, state, fence, _, _, bits, attempt, lost, _, finished, ending, cancelling, due, reason, result, _, renewed =
      pcall(cmsgpack.unpack, raw)
  end
  if fine and type(state) == 'string' and numbers(fence, bits, attempt, lost) then
    return pack('r', fence + 1, seq, runner, bits, attempt, lost, t, finished, ending, cancelling, due, reason,
      result, nil, renewed)
  end
  local flags = byte(cold) or 0
  if not first_claims[flags] then
    first_claims[flags] = pack('r', 1, seq, runner, flags, 0, 0, t, nil, nil, nil, nil, nil, nil, nil, nil)
  end
  return first_claims[flags]
end

local function claim(may_be_expired)
  local ids, expired, depths = choose(demand, t, may_be_expired)
  for line, depth in pairs(depths) do -- what was taken of a line, or found expired, is its first entries
    call('ZREMRANGEBYRANK', P .. 'l:' .. line, 0, depth - 1)
    touched[line] = true
  end
  cancel_expired(expired, t)
  local colds, raws, expiring = hmget(JOBS, ids), hmget(NEWS, ids), call('EXISTS', EXPIRING) == 1
  local claims, news = {}, {}
  local mine = {}
  for n, id in ipairs(ids) do
    local cold = colds[n]
    if cold then -- else somebody took the record away by hand
      local raw, flags, at = running(cold, raws[n]), byte(cold) or 0, 3 * #mine
      mine[#mine + 1] = id
      news[#news + 1], news[#news + 2] = id, raw
      claims[at + 1], claims[at + 2], claims[at + 3] = id, flags >= 16 and whole(id, cold) or cold, raw
      if expiring and has(flags, 4) then
        later('ZREM', EXPIRING, id)
      end
    end
  end
  send('HSET', NEWS, news, #news)
  send('SADD', held, mine, #mine)
  flush()
  return claims, #expired > 0
end

local refused = settle(runner, outcomes, t)
local ended = #outcomes / OUTCOME - #refused
local finished = ended > 0
local claims, due = nil, 0
if seq <= last then
  claims = again()
else
  local any, more_expired = expire(t)
  finished = finished or any
  local next_run = promote(t)
  local more
  claims, more = claim(more_expired)
  if #outcomes > 0 or #claims > 0 then
    call('HSET', P .. 'seqs', runner, seq)
  end
  due = next_run and max(0, next_run - t) or -1
  local most = min(demand[1], BATCH)
  if more or (most > 0 and #claims / 3 >= most) then
    due = 0
  end
end
if finished then
  trim(max(64, 2 * ended))
  ring('done')
end
return {due, refused, claims, seq <= last and 1 or 0}
