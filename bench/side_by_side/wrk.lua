-- Requests with the cookie of a random session: wrk ... -- PATH SESSIONS [BYTES TO UPLOAD]

-- As bench/tool/src/requests.rs and loads.py write them.
local prefix = "b7f3a1c09e5d4286a1f07c3e"
local before, after, count
local uploads

function init(args)
   local path, bytes = args[1], tonumber(args[3])
   count = tonumber(args[2])
   local method = bytes > 0 and "POST" or "GET"
   before = method .. " " .. path .. " HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: wrk\r\nAccept: */*\r\nCookie: session=" .. prefix
   after = "\r\n\r\n"
   if bytes > 0 then
      after = "\r\nContent-Length: " .. bytes .. "\r\n\r\n" .. string.rep("x", bytes)
      -- Long ones are made once: few sessions upload.
      uploads = {}
      for number = 1, 16 do
         uploads[number] = before .. (10000000 + number) .. after
      end
   end
end

function request()
   if uploads then
      return uploads[math.random(#uploads)]
   end
   return before .. (9999999 + math.random(count)) .. after
end
