-- Signed 64-bit numbers, as text: the server's integers.
local I64_MAX, I64_MIN = '9223372036854775807', '9223372036854775808'

-- Sign and digits; nil if the server would not take it for an integer.
local function integer(text)
  local sign, digits = text:match('^(%-?)(%d+)$')
  if not digits or #digits > 19 or (digits:sub(1, 1) == '0' and text ~= '0') then return nil end
  if compare(digits, sign == '-' and I64_MIN or I64_MAX) > 0 then return nil end
  return sign, digits
end

-- Of two numbers as u64() gives them, the second not above the first.
local function subtract(a, b)
  b = ('0'):rep(#a - #b) .. b
  local digits, borrow = {}, 0
  for i = #a, 1, -1 do
    local difference = a:byte(i) - b:byte(i) - borrow
    borrow = difference < 0 and 1 or 0
    digits[i] = string.char(48 + difference + borrow * 10)
  end
  return (table.concat(digits):gsub('^0+(%d)', '%1'))
end

-- The sum, or nil and why there is none.
local function sum(a, b)
  local sign, digits = integer(a)
  local b_sign, b_digits = integer(b)
  if not (digits and b_digits) then return nil, 'integer' end
  -- Lua's numbers hold those of 15 digits, and the sum of two.
  if #digits <= 15 and #b_digits <= 15 then return text(tonumber(a) + tonumber(b)) end
  if sign == b_sign then
    digits = add(digits, b_digits)
  elseif compare(digits, b_digits) >= 0 then
    digits = subtract(digits, b_digits)
  else
    sign, digits = b_sign, subtract(b_digits, digits)
  end
  if digits == '0' then return '0' end
  if digits and integer(sign .. digits) then return sign .. digits end
  return nil, 'overflow'
end
