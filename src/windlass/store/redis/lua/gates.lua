-- The gates that an exchange meets: which jobs behind them become ready, and which of those that a claim has chosen may
-- start. As many of a group are ready as would fit if all others stood still; they take nothing of a gate before they are
-- claimed. A claim looks again, and what does not fit any more goes back. A group that a gate bars is *blocked* there, and
-- looked at when that gate is freed:
--   blocked: group to (gate, place of its best); b:<gate>: "<line>\n<place>\n<needs>" of each, heavy:<gate> the same of those
--   with a weight above 1, by weight; barred: the gates that bar any.
local GATE_KIND, PACE_KIND = 'gate', 'pace'
local LOOKS = 16 -- how often a claim chooses anew at most, when what it chose did not fit through its gates
local FIRST_BLOCKED = 8 -- groups read at first of those that a gate bars; four times as many each time after

local gates, families = {}, {} -- as they are now, with what this claim has chosen to take
local opened = {} -- the jobs that became ready

local CLOSED = {limit = 0, burst = 1}

local function whole_number(value)
  return type(value) == 'number' and floor(value) == value and math.abs(value) < 2 ^ 53 and value or nil
end

-- The body of a document, its version, and the body as a table if it is an object.
local function read_doc(kind, name)
  local value = call('HGET', P .. 'd:' .. kind, name)
  if not value then
    return nil
  end
  local version, body = string.match(value, '^(%d+) %S+ (.*)$')
  local fine, table = pcall(cjson.decode, body or '')
  return version, fine and type(table) == 'table' and string.find(body, '^%s*{') and table or nil
end

-- The settings that a document tells; nil if there is none.
local function read_settings(name)
  local version, told = read_doc(GATE_KIND, name)
  if not told then
    return version and CLOSED
  end
  local settings = {burst = 1}
  for name, value in pairs(told) do
    if (name == 'limit' or name == 'interval') and value ~= cjson.null or name == 'burst' then
      settings[name] = whole_number(value)
      if not settings[name] then
        return CLOSED
      end
    end
  end
  return settings
end

-- What is paid for by a clock that was set back since counts as nothing.
local function paid_until(name, t)
  local _, pace = read_doc(PACE_KIND, name)
  local paid, at = pace and whole_number(pace.paid), pace and whole_number(pace.at)
  return paid and at and at <= t and paid or 0
end

local function used_of(name)
  local sum = 0
  for _, units in ipairs(call('HVALS', P .. 'holds:' .. name)) do
    sum = sum + math.abs(tonumber(units) or 0)
  end
  return sum
end

local function gate_of(name, t)
  local gate = gates[name]
  if not gate then
    local family = string.match(name, '^[^/]*')
    local settings = family ~= name and read_settings(name)
    if not settings then
      families[family] = families[family] or read_settings(family) or CLOSED
      settings = families[family]
    end
    gate = {name = name, limit = settings.limit, interval = settings.interval, burst = settings.burst}
    gate.used = gate.limit and used_of(name) or 0
    gate.paid = gate.interval and paid_until(name, t) or 0
    gates[name] = gate
  end
  return gate
end

-- The units that a job takes: one heavier than its gate takes all of it.
local function share(gate, weight)
  return gate.limit and max(1, min(weight, gate.limit)) or weight
end

-- The units that a job has kept; 0 for none.
local function own(need, id)
  return need.keep and math.abs(tonumber(call('HGET', P .. 'holds:' .. need.gate, id) or nil) or 0) or 0
end

-- How many jobs of this need fit, at most `most`, if `id` is the first of them.
local function fits(need, id, most, t)
  local gate, weight = gate_of(need.gate, t), need.weight
  if gate.limit then
    most = min(most, floor((gate.limit - gate.used + own(need, id)) / share(gate, weight)))
  end
  if gate.interval and gate.interval > 0 then
    local budget = max(gate.burst, weight) * gate.interval - (max(gate.paid, t) - t)
    most = min(most, floor(budget / (weight * gate.interval)))
  end
  return max(0, most)
end

local function take_of(need, id, t)
  local gate = gate_of(need.gate, t)
  gate.used = gate.used + share(gate, need.weight) - own(need, id)
  if gate.interval then
    gate.paid = max(gate.paid, t) + need.weight * gate.interval
  end
end

-- Have a gate that has a rate looked at when that lets `weight` units start.
local function call_gate(name, weight, t)
  local gate = gate_of(name, t)
  if gate.interval then
    local at = gate.paid - (max(gate.burst, weight) - weight) * gate.interval
    if at > t then
      call('ZADD', FREED, 'LT', at, name)
      call('ZADD', SINCE, 'GT', t, name)
    end
  end
end

-- Groups that a gate bars

local function split(group)
  local at = string.find(group, '\n', 1, true)
  return sub(group, 1, at - 1), sub(group, at + 1)
end

-- Take a group, whose value in `blocked` this is, from its gate.
local function withdraw(group, value)
  local gate, member = read(value, 2)
  local line, text = split(group)
  local entry = line .. '\n' .. member .. '\n' .. text
  if call('ZREM', P .. 'b:' .. gate, entry) == 1 and call('EXISTS', P .. 'b:' .. gate) == 0 then
    call('ZREM', BARRED, gate)
  end
  if needs_of(text).heavy then
    call('ZREM', P .. 'heavy:' .. gate, entry)
  end
end

local function unblock(group)
  local value = call('HGET', BLOCKED, group)
  if value then
    withdraw(group, value)
    call('HDEL', BLOCKED, group)
  end
end

local function block(group, need, member, t)
  local value, before = pack(need.gate, member), call('HGET', BLOCKED, group)
  if before ~= value then
    if before then
      withdraw(group, before)
    end
    local line, text = split(group)
    local entry = line .. '\n' .. member .. '\n' .. text
    call('ZADD', P .. 'b:' .. need.gate, 0, entry)
    if need.weight > 1 then
      call('ZADD', P .. 'heavy:' .. need.gate, need.weight, entry)
    end
    later('HSET', BLOCKED, group, value)
    later('ZADD', BARRED, 0, need.gate)
  end
  call_gate(need.gate, need.weight, t)
end

-- Who is ready

-- How many jobs with these needs fit, at most BATCH, if `id` is one of them; and what bars more.
local function room_of(needs, id, t)
  local room, barred = BATCH, nil
  for _, need in ipairs(needs) do
    local most = fits(need, id, room, t)
    if most < room or not barred then
      room, barred = most, need
    end
  end
  return room, barred
end

local function admit_one(line, member)
  later('ZADD', P .. 'l:' .. line, 0, member)
  later('ZREM', P .. 'x:' .. line, member)
  touched[line], waited[line] = true, true
  opened[sub(member, ORDER + 1)] = true
end

-- Jobs of a group that wait and have kept a gate: nobody else can pass it.
local function admit_keepers(needs, line, text, t)
  for _, need in ipairs(needs) do
    local holders = need.keep and call('HGETALL', P .. 'holds:' .. need.gate) or {}
    for n = 1, #holders, 2 do
      local job = tonumber(holders[n + 1]) and tonumber(holders[n + 1]) < 0 and load(holders[n])
      if job and job.state == 'i' and line_of(job) == line and call('HGET', GATES, job.id) == text then
        local member = order(job.priority, job.rank) .. job.id
        if call('ZSCORE', P .. 'x:' .. line, member) and room_of(needs, job.id, t) > 0 then
          admit_one(line, member)
        end
      end
    end
  end
end

local looked = {} -- groups that this admission has looked at, and how many of each are ready

-- Make the best jobs of a group ready, as many as fit; how many that are.
local function look(group, t)
  if looked[group] then
    return looked[group]
  end
  local line, text = split(group)
  local needs, key = needs_of(text), P .. 'w:' .. group
  if needs.keep then
    admit_keepers(needs, line, text, t)
  end
  local first = needs.keep and call('ZRANGE', key, 0, 0)[1]
  local room, barred = room_of(needs, first and sub(first, ORDER + 1) or '', t)
  local members = call('ZRANGE', key, 0, room)
  local count = min(room, #members)
  local scores = count > 0 and call('ZMSCORE', P .. 'l:' .. line, unpack(members, 1, count)) or {}
  for n = 1, count do
    if not scores[n] then
      admit_one(line, members[n])
    end
  end
  if barred and #members > room then
    block(group, barred, members[room + 1], t)
  else
    unblock(group)
  end
  looked[group] = count
  return count
end

-- How many units a gate that bars groups has room for.
local function room_at(gate, t)
  return fits({gate = gate, weight = 1, keep = false}, '', BATCH, t)
end

-- Look at the next group of a line that a gate bars; the room that is left for others, nil once there is none.
local function open_next(gate, line, entry, room, t)
  local text = sub(entry, string.find(entry, '\n', #line + 2, true) + 1)
  local weight = 1
  for _, need in ipairs(needs_of(text)) do
    weight = need.gate == gate and need.weight or weight
  end
  if room <= 0 then
    call_gate(gate, weight, t)
    return nil
  end
  return room - weight * look(line .. '\n' .. text, t)
end

-- Look at the best groups of one line that a gate bars, as many as it has room for.
local function open_line(gate, line, t)
  local room, done, size = room_at(gate, t), 0, FIRST_BLOCKED
  local from = '[' .. line .. '\n'
  while done < BATCH do
    local entries = call('ZRANGE', P .. 'b:' .. gate, from, '(' .. line .. '\11', 'BYLEX', 'LIMIT', 0, size)
    for _, entry in ipairs(entries) do
      room = open_next(gate, line, entry, room, t)
      if not room then
        return
      end
    end
    if #entries < size then
      return
    end
    from, done, size = '(' .. entries[#entries], done + size, size * 4
  end
end

-- Look at the best groups that a gate bars, of each line.
local function open(gate, t)
  local entries = call('ZRANGE', P .. 'b:' .. gate, 0, FIRST_BLOCKED - 1)
  local line, room = nil, nil
  if #entries < FIRST_BLOCKED then -- these are all
    for _, entry in ipairs(entries) do
      if split(entry) ~= line then
        line, room = split(entry), room_at(gate, t)
      end
      room = room and open_next(gate, line, entry, room, t)
    end
    return
  end
  local entry = entries[1]
  while entry do
    line = split(entry)
    open_line(gate, line, t)
    entry = call('ZRANGE', P .. 'b:' .. gate, '(' .. line .. '\11', '+', 'BYLEX', 'LIMIT', 0, 1)[1]
  end
end

-- Take the gates that may have room now, and those of which that was written before somebody set the clock back.
local function take_freed(t)
  local moment = format('%.0f', t)
  local freed = call('ZRANGE', FREED, '-inf', moment, 'BYSCORE', 'LIMIT', 0, BATCH)
  if #freed < BATCH then
    for _, gate in ipairs(call('ZRANGE', SINCE, '(' .. moment, '+inf', 'BYSCORE', 'LIMIT', 0, BATCH - #freed)) do
      freed[#freed + 1] = gate
    end
  end
  if #freed > 0 then
    call('ZREM', FREED, unpack(freed))
    call('ZREM', SINCE, unpack(freed))
  end
  return freed
end

-- Look at what was stirred and at gates that were freed; whether more of that is left.
local function admit(t)
  if call('EXISTS', STIRRED, FREED) == 0 then
    return false
  end
  looked = {}
  local groups, freed = call('SPOP', STIRRED, BATCH), take_freed(t)
  for _, group in ipairs(groups) do
    look(group, t)
  end
  for _, gate in ipairs(freed) do
    open(gate, t)
  end
  flush()
  return max(#groups, #freed) == BATCH
end

-- Who may start

-- Whether a job may pass a gate: there is room, and no heavier and better one waits for it that the demand takes.
local function passes(need, one, shut, serves, t)
  if own(need, one.id) > 0 then
    return fits(need, one.id, 1, t) > 0
  end
  if shut[need.gate] or fits(need, one.id, 1, t) == 0 then
    return false
  end
  for _, entry in ipairs(call('ZRANGE', P .. 'heavy:' .. need.gate, '(' .. need.weight, '+inf', 'BYSCORE')) do
    local line, rest = split(entry)
    if comes_first((split(rest)), one.member) and serves(line) then
      return false
    end
  end
  return true
end

-- The ready jobs of one group go back, from a place on.
local function turn_away(group, needs, barred, best, t)
  local line = split(group)
  local standing = call('ZRANGE', P .. 'w:' .. group, 0, 2 * BATCH - 1)
  local scores = #standing > 0 and call('ZMSCORE', P .. 'l:' .. line, unpack(standing)) or {}
  for n, member in ipairs(standing) do
    if scores[n] and not comes_first(member, best) then
      later('ZREM', P .. 'l:' .. line, member)
      later('ZADD', P .. 'x:' .. line, 0, member)
      opened[sub(member, ORDER + 1)] = nil
    end
  end
  touched[line], waited[line] = true, true
  block(group, barred, best, t)
  for _, need in ipairs(needs) do -- others may wait for what these do not take
    if need.gate ~= barred.gate then
      free_gate(need.gate)
    end
  end
end

-- What is ready and was chosen, in the order of claiming, as tables (id, member, line, needs, text): which of them do not
-- fit; nil if all do.
local function refuse(chosen, serves, t)
  local shut, refused, groups, away = {}, nil, {}, {}
  for _, one in ipairs(chosen) do
    local barred = nil
    for _, need in ipairs(one.needs) do
      if not passes(need, one, shut, serves, t) then
        barred = need
        break
      end
    end
    if barred then
      local group = one.line .. '\n' .. one.text
      refused = refused or {}
      refused[one.id], shut[barred.gate] = true, true
      if not away[group] then
        away[group] = {group, one.needs, barred, one.member}
        groups[#groups + 1] = away[group]
      end
    else
      for _, need in ipairs(one.needs) do
        take_of(need, one.id, t)
      end
    end
  end
  if refused then
    gates = {} -- nobody has started
  end
  for _, group in ipairs(groups) do
    turn_away(group[1], group[2], group[3], group[4], t)
  end
  flush()
  return refused
end

-- Keep what the starts of a gate have cost.
local function save_pace(gate, t)
  local version = read_doc(PACE_KIND, gate.name)
  local paid, moment = format('%.0f', gate.paid), format('%.0f', t)
  call('HSET', P .. 'd:pace', gate.name, format('%.0f %s {"paid":%s,"at":%s}',
    version and tonumber(version) + 1 or t, paid, paid, moment))
  call('ZADD', P .. 'dn:pace', 0, gate.name)
  call('ZADD', P .. 'dd:pace', paid, gate.name)
  call_gate(gate.name, 1, t) -- others may wait, or stand ready to be refused
end

-- Write what jobs that are claimed now take. `taken`: whether their gates know it already.
local function start(jobs, taken, t)
  local met = {}
  for _, one in ipairs(jobs) do
    for _, need in ipairs(one.needs) do
      local gate = gate_of(need.gate, t)
      if not taken then
        take_of(need, one.id, t)
      end
      later('HSET', P .. 'holds:' .. need.gate, one.id, (need.keep and -1 or 1) * share(gate, need.weight))
      met[need.gate] = gate
    end
    later('ZREM', P .. 'w:' .. one.line .. '\n' .. one.text, one.member)
    opened[one.id] = nil
  end
  for _, gate in pairs(met) do
    if gate.interval then
      save_pace(gate, t)
    end
  end
end
