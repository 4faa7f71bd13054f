-- Documents: d:<kind> is a hash of name to "version due body", dn:<kind> a sorted set of all names (score 0), dd:<kind>
-- one of those that have a due time.
local DOC = 4 -- values of one document: kind, name, version, due

-- What a conflict answers, or nil. A document that an earlier try of this very call has written is none.
local function check_docs(docs, texts, repeated)
  local versions = {}
  for n = 1, #docs / DOC do
    local at = (n - 1) * DOC
    local kind, name, version = docs[at + 1], docs[at + 2], docs[at + 3]
    local id = kind .. '\n' .. name
    local value = call('HGET', P .. 'd:' .. kind, name)
    local stored = versions[id] or (value and tonumber(string.match(value, '^%d+'))) or 0
    local written = repeated and value and stored == version + 1 and
      string.match(value, '^%S+ %S+ (.*)$') == ARGV[texts + n]
    if stored ~= version and not written then
      return {'conflict', kind, name, stored, version}
    end
    versions[id] = version + 1
  end
end

local function save_docs(docs, texts)
  for n = 1, #docs / DOC do
    local at = (n - 1) * DOC
    local kind, name, version, due = docs[at + 1], docs[at + 2], docs[at + 3], docs[at + 4]
    local when = due and format('%.0f', due) or '-'
    call('ZADD', P .. 'dn:' .. kind, 0, name)
    call('HSET', P .. 'd:' .. kind, name, format('%.0f', version + 1) .. ' ' .. when .. ' ' .. ARGV[texts + n])
    if due then
      call('ZADD', P .. 'dd:' .. kind, due, name)
    else
      call('ZREM', P .. 'dd:' .. kind, name)
    end
  end
end
