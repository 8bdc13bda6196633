const http = require("http");
const ms = require("ms");

http.createServer((_, answer) => answer.end(`a day has ${ms("1d")} ms\n`)).listen(3000);
