/**
 * What Redis does with spent quota, in one step each: nothing else can come between.
 *
 * The arithmetic is that of policies/quota.ts, by the server's own clock: windows of 61 slots, days and months of UTC. A
 * counter is a hash of slot → amount that goes with its window. Amounts are whole numbers. A clock that is set back mints
 * nothing: slots of the future count.
 */
const SHARED = `
local SLOTS = 60
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
-- Days since the epoch -> months since 1970 (civil calendar; H. Hinnant, chrono-compatible low-level date algorithms).
local function monthOf(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return (year - 1970) * 12 + month - 1
end
local function daysBefore(months)
  local year = 1970 + math.floor(months / 12)
  local month = months % 12 + 1
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local yoe = year - era * 400
  local mp = month > 2 and month - 3 or month + 9
  local doy = math.floor((153 * mp + 2) / 5)
  return era * 146097 + yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy - 719468
end
local DAY = 86400000
local function slotAt(now, charge)
  if charge.period == 'day' then return math.floor(now / DAY) end
  if charge.period == 'month' then return monthOf(math.floor(now / DAY)) end
  return math.floor(now * SLOTS / charge.windowMs)
end
local function expiryOf(slot, charge)
  if charge.period == 'day' then return (slot + 1) * DAY end
  if charge.period == 'month' then return daysBefore(slot + 1) * DAY end
  return math.ceil((slot + SLOTS + 1) * charge.windowMs / SLOTS)
end
local function oldestOf(slot, charge)
  if charge.period then return slot end
  return slot - SLOTS
end
local function add(key, charge, slot, amount, now)
  redis.call('HINCRBY', key, string.format('%d', slot), string.format('%d', amount))
  redis.call('PEXPIREAT', key, string.format('%d', expiryOf(slot, charge) + 60000))
end
`;

/**
 * KEYS: one for each charge. ARGV[1]: JSON list of { limit, windowMs, period?, cost, want, later }: `want` is taken where
 * it fits, otherwise `cost`; `later` counts it one slot later, as a lease is spent later.
 *
 * Returns {1, now, {used, granted, slot} for each}, or {0, index, milliseconds to wait; -1: it never fits}.
 */
export const RESERVE = `${SHARED}
local now = clock()
local charges = cjson.decode(ARGV[1])
local found = {}
local worst, wait = 0, 0
for index, charge in ipairs(charges) do
  local slot = slotAt(now, charge)
  local oldest = oldestOf(slot, charge)
  local total, live = 0, {}
  local data = redis.call('HGETALL', KEYS[index])
  for at = 1, #data, 2 do
    local field, amount = tonumber(data[at]), tonumber(data[at + 1])
    if field < oldest then redis.call('HDEL', KEYS[index], data[at])
    else
      total = total + amount
      live[#live + 1] = { field, amount }
    end
  end
  local take = charge.want
  if total + take > charge.limit then take = charge.cost end
  if charge.cost > charge.limit then worst, wait = index, -1
  elseif wait >= 0 and total + take > charge.limit then
    table.sort(live, function(one, other) return one[1] < other[1] end)
    local excess = total + take - charge.limit
    local last = slot
    for _, grant in ipairs(live) do
      excess = excess - grant[2]
      last = grant[1]
      if excess <= 0 then break end
    end
    local own = math.max(1, expiryOf(last, charge) - now)
    if own > wait then worst, wait = index, own end
  end
  found[index] = { total = total, take = take, slot = slot }
end
if worst > 0 then return { 0, worst, wait } end
local granted = {}
for index, charge in ipairs(charges) do
  local one = found[index]
  local slot = one.slot
  if charge.later then slot = slot + 1 end
  if one.take > 0 then add(KEYS[index], charge, slot, one.take, now) end
  granted[index] = { one.total + one.take, one.take, slot, expiryOf(one.slot, charge) - now }
end
return { 1, now, granted }
`;

/** KEYS: one for each change. ARGV[1]: JSON list of { windowMs, period?, slot, amount }. What has left its window is left alone. */
export const CHANGE = `${SHARED}
local now = clock()
for index, change in ipairs(cjson.decode(ARGV[1])) do
  if change.slot >= oldestOf(slotAt(now, change), change) then add(KEYS[index], change, change.slot, change.amount, now) end
end
return 1
`;

export const SCRIPTS: readonly string[] = [RESERVE, CHANGE];
