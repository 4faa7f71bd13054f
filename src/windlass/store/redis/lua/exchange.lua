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
  local fine, state, fence, _, _, bits, attempt, lost, _, finished, ending, cancelling, due, reason, result, _, renewed, rank =
    false, nil
  if raw then
    fine, state, fence, _, _, bits, attempt, lost, _, finished, ending, cancelling, due, reason, result, _, renewed, rank =
      pcall(cmsgpack.unpack, raw)
  end
  if fine and type(state) == 'string' and numbers(fence, bits, attempt, lost) then
    return pack('r', fence + 1, seq, runner, bits, attempt, lost, t, finished, ending, cancelling, due, reason,
      result, nil, renewed, rank)
  end
  local flags = flags_of(cold)
  if not first_claims[flags] then
    first_claims[flags] = pack('r', 1, seq, runner, flags, 0, 0, t, nil, nil, nil, nil, nil, nil, nil, nil, nil)
  end
  return first_claims[flags]
end

-- Those of chosen jobs that are behind gates, as `refuse` takes them.
local function gated(ids, colds, members, lines)
  local found = {}
  for n, id in ipairs(ids) do
    if colds[n] and has(flags_of(colds[n]), 64) then
      local needs, text = gates_of(id, lines[n])
      if #needs > 0 then
        found[#found + 1] = {at = n, id = id, member = members[n], line = lines[n], needs = needs, text = text}
      end
    end
  end
  return found
end

-- Take the first of what was chosen, up to what was refused.
local function take_first(ids, members, lines, behind, refused)
  local count, starting = #ids, {}
  for n, id in ipairs(refused and ids or {}) do
    if refused[id] then
      count = n - 1
      break
    end
  end
  for n = 1, count do
    later('ZREM', P .. 'l:' .. lines[n], members[n])
    touched[lines[n]] = true
  end
  for _, one in ipairs(behind) do
    if one.at <= count then
      starting[#starting + 1] = one
    end
  end
  start(starting, not refused, t)
  for n = #ids, count + 1, -1 do
    ids[n] = nil
  end
end

-- Choose jobs whose gates have room, and take them from their lines: their ids, their records of `jobs`, and whether more
-- could be taken at once.
local function draw(may_be_expired, able)
  local late, serves = false, able and serves_of(demand)
  for look = 1, LOOKS do
    local more = able and admit(t)
    local ids, expired, depths, members, lines = choose(demand, t, may_be_expired)
    local colds = hmget(JOBS, ids)
    local behind = gated(ids, colds, members, lines)
    late = late or #expired > 0
    if #behind == 0 then
      for line, depth in pairs(depths) do -- what was taken of a line, or found expired, is its first entries
        call('ZREMRANGEBYRANK', P .. 'l:' .. line, 0, depth - 1)
        touched[line] = true
      end
      cancel_expired(expired, t)
      return ids, colds, late or more
    end
    cancel_expired(expired, t)
    flush()
    local refused = refuse(behind, serves, t)
    if not refused or look == LOOKS then
      take_first(ids, members, lines, behind, refused)
      return ids, colds, late or more or refused ~= nil
    end
  end
end

-- What a start means for a job that has more than a place in its line.
local function step_up(id, flags, cold)
  if has(flags, 128) then
    free(id)
  end
  if has(flags, 256) then
    local _, _, _, _, _, priority, line = read(cold, 7)
    if numbers(priority) and type(line) == 'string' then
      drop_out({id = id, flags = flags, priority = priority, line = line})
    end
  end
end

local function claim(may_be_expired, able)
  local ids, colds, more = draw(may_be_expired, able)
  local raws, expiring = hmget(NEWS, ids), call('EXISTS', EXPIRING) == 1
  local claims, news = {}, {}
  local mine = {}
  for n, id in ipairs(ids) do
    local cold = colds[n]
    if cold then -- else somebody took the record away by hand
      local raw, flags, at = running(cold, raws[n]), flags_of(cold), 3 * #mine
      mine[#mine + 1] = id
      news[#news + 1], news[#news + 2] = id, raw
      claims[at + 1], claims[at + 2], claims[at + 3] = id, flags >= 16 and whole(id, cold) or cold, raw
      if expiring and has(flags, 4) then
        later('ZREM', EXPIRING, id)
      end
      if flags >= 128 then
        step_up(id, flags, cold)
      end
    end
  end
  send('HSET', NEWS, news, #news)
  send('SADD', held, mine, #mine)
  flush()
  if next(opened) then
    ring('work')
  end
  return claims, more
end

-- Whether a demand can take anything.
local function is_able()
  for _, lane in ipairs(demand[2]) do
    if lane[1] > 0 and demand[1] > 0 then
      return true
    end
  end
  return false
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
  local able, more = is_able(), nil
  claims, more = claim(more_expired, able)
  if #outcomes > 0 or #claims > 0 then
    call('HSET', P .. 'seqs', runner, seq)
  end
  local look = able and next_look(t) or next_run
  next_run = look and min(look, next_run or look)
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
