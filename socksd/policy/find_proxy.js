// Each answer is 1 (yes), 0 (no) or 2 (that depends on what a browser cannot know).
function number(host) {
  var parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(host);
  return parts ? ((+parts[1] * 256 + +parts[2]) * 256 + +parts[3]) * 256 + +parts[4] : -1;
}
function named(names, host) {
  if (names.exact.hasOwnProperty(host)) return true;
  for (var rest = host; ; rest = rest.slice(rest.indexOf(".") + 1)) {
    if (names.suffix.hasOwnProperty(rest)) return true;
    if (rest.indexOf(".") < 0) break;
  }
  for (var i = 0; i < names.globs.length; i++) if (shExpMatch(host, names.globs[i])) return true;
  return false;
}
function inside(networks, asked) {
  for (var i = 0; i < networks.length; i++)
    if (networks[i][1].hasOwnProperty(Math.floor(asked.number / networks[i][0]))) return 1;
  return 0;
}
function led(where, asked) {
  if (asked.name) return named(where.names, asked.host) ? 1 : where.some ? 2 : 0;
  return asked.number < 0 ? (where.some ? 2 : 0) : inside(where.v4, asked);
}
function answer(condition, asked) {
  var of = condition[1], inner;
  switch (condition[0]) {
    case "to": return led(of, asked);
    case "not_to": inner = led(of, asked); return inner === 2 ? 2 : 1 - inner;
    case "resolves_to": return asked.number < 0 ? 2 : inside(of.v4, asked);
    case "ports":
      for (var i = 0; i < of.length; i += 2)
        if (asked.port >= of[i] && asked.port < of[i + 1]) return 1;
      return 0;
    case "require": return asked.name ? 1 : 0;
    default: return 2;
  }
}
function FindProxyForURL(url, host) {
  host = host.toLowerCase().replace(/^\[|\]$/g, "").replace(/\.$/, "");
  var parts = /^([a-z][a-z0-9+.-]*):(?:\/\/)?(?:[^\/?#@]*@)?(?:\[[^\]]*\]|[^\/?#:]*)(?::(\d+))?/i
    .exec(url) || [];
  var usual = { http: 80, ws: 80, https: 443, wss: 443, ftp: 21 };
  var port = +parts[2] || usual[(parts[1] || "").toLowerCase()] || 0;
  var asked = { host: host, number: number(host), port: port };
  asked.name = asked.number < 0 && host.indexOf(":") < 0;
  if (host === "why.socksd") return VIA;
  for (var i = 0; i < RULES.length; i++) {
    var all = 1;
    for (var j = 1; all && j < RULES[i].length; j++) {
      var one = answer(RULES[i][j], asked);
      if (one !== 1) all = one && Math.max(all, one);
    }
    if (all === 1 && RULES[i][0] === "leave") return "DIRECT";
    if (all === 1 || (all === 2 && RULES[i][0] === "allow")) return VIA;
  }
  return "DIRECT";
}
