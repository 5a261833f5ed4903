/*
 * A load generator for SOCKS5 servers, with targets of its own.
 *
 *     load MODE [--proxy HOST:PORT] [--streams N] [--seconds S] ...
 *
 * One process drives the clients, a second one is the targets: echo, source
 * and sink. Everything is on the loopback: any other address is refused. What
 * is carried is a pattern that tells position, and both ends check it. Every
 * run is bounded in time, and prints one JSON object.
 *
 * Modes:
 *   bulk   streams as fast as they go, --direction down, up or both
 *   cps    connect, greeting, CONNECT, 64 octets echoed, close; --streams at a time
 *   rr     64 octets to and fro in open tunnels, one message in flight in each
 *   idle   tunnels that are open and silent; in the end each must still echo
 *   stall  tunnels whose clients read nothing (or --trickle octets a second)
 *          of what a source sends, and one tunnel that chats beside them
 *   udp    datagrams of 64 octets, echoed through UDP ASSOCIATE
 *
 * Without --proxy the clients go to the targets themselves.
 * Exit status: 0; 1 when octets were wrong or missing, or nothing worked at
 * all; 2 for wrong usage.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PERIOD = 65537,      /* prime: no lost or doubled block of 2^n octets goes unseen */
    CHUNK = 256 * 1024,  /* octets of one send or recv of bulk */
    MESSAGE = 64,        /* octets of a message that is echoed */
    EVENTS = 256,
    OPENING = 64,        /* dialogues at the same time while tunnels are opened */
    SPREAD = 8,          /* addresses of the echo target; see listen_on() */
    RING = 4096,         /* datagrams of one association whose departure is remembered */
    FULL_EVERY = 16,     /* of so many reads one is compared whole; see verify() */
    MOST_FAILURES = 1000,
};
#define SECOND UINT64_C(1000000000) /* all times are nanoseconds */
#define UNLIMITED UINT64_MAX

enum mode { BULK, CPS, RR, IDLE, STALL, UDP };
static const char *const MODES[] = {"bulk", "cps", "rr", "idle", "stall", "udp"};

enum role { LISTEN_ECHO, LISTEN_FLOW, ECHO_TCP, ECHO_UDP, FLOW, CLIENT };
enum step { NOWHERE, CONNECTING, GREETED, LOGGING_IN, REQUESTED, OPEN };

struct connection {
    int fd;
    enum role role;
    enum step step;          /* of a client */
    bool chats, reads_on;    /* of an open client: sends messages; its octets are read */
    bool read_ended;
    uint64_t out, in;        /* octets of the pattern so far */
    uint64_t to_send, to_receive; /* of a flow; UNLIMITED until the time is over */
    uint64_t since;          /* when the connection, or its last message, was begun */
    unsigned reads;
    struct sockaddr_in bound; /* BND of the reply */
    size_t have;
    uint8_t unread[512];
};

/* What the targets tell the clients' process. */
struct shared {
    _Atomic uint64_t received, sent, wrong;
};

static struct {
    enum mode mode;
    bool proxied, hold, full, corrupt, down, up;
    struct sockaddr_storage proxy;
    socklen_t proxy_length;
    const char *user, *password;
    unsigned streams, depth;
    uint64_t octets, trickle, rate;
    double seconds;
} options = {.streams = 1, .seconds = 1, .depth = 16, .octets = UNLIMITED, .down = true};

static uint8_t pattern[PERIOD + CHUNK];  /* what must arrive */
static uint8_t outgoing[PERIOD + CHUNK]; /* what is sent: the same, but with --corrupt */
static uint8_t scratch[CHUNK];
static struct shared *targets;
static int epoll = -1;
static struct sockaddr_in echo_address, flow_address;

static struct connection *clients;
static unsigned count, next, opening, opened, failed, active;
static uint64_t received, wrong, operations, last, stop;
static uint64_t histogram[64 * 64]; /* 64 steps to each doubling: 1.6 % */
static uint64_t slowest;

/* -- small things ---------------------------------------------------------- */

__attribute__((noreturn, format(printf, 2, 3))) static void die(int status, const char *text, ...)
{
    va_list arguments;
    va_start(arguments, text);
    fputs("load: ", stderr);
    vfprintf(stderr, text, arguments);
    fputc('\n', stderr);
    exit(status);
}

static int must(int result, const char *what)
{
    if (result < 0) die(1, "%s: %s", what, strerror(errno));
    return result;
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void took(uint64_t time)
{
    unsigned exponent = time < 64 ? 0 : 63 - 6 - (unsigned)__builtin_clzll(time) + 1;
    uint64_t index = exponent ? exponent * 64 + (time >> (exponent - 1)) - 64 : time;
    histogram[index < 64 * 64 ? index : 64 * 64 - 1]++;
    if (time > slowest) slowest = time;
}

static double quantile(double part) /* in microseconds */
{
    uint64_t all = 0, seen = 0;
    for (unsigned index = 0; index < 64 * 64; index++) all += histogram[index];
    for (unsigned index = 0; index < 64 * 64; index++) {
        seen += histogram[index];
        if (all && seen >= part * all) {
            unsigned exponent = index / 64;
            uint64_t low = exponent ? (uint64_t)(index % 64 + 64) << (exponent - 1) : index;
            return low / 1e3;
        }
    }
    return 0;
}

static void watch(struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    must(epoll_ctl(epoll, operation, c->fd, &event), "epoll_ctl");
}

static void shut(struct connection *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->step = NOWHERE;
}

/* -- the pattern ----------------------------------------------------------- */

static void make_pattern(void)
{
    uint32_t state = 2463534242; /* xorshift */
    for (size_t at = 0; at < sizeof pattern; at++) {
        if (at < PERIOD) {
            state ^= state << 13, state ^= state >> 17, state ^= state << 5;
            pattern[at] = (uint8_t)state;
        } else {
            pattern[at] = pattern[at - PERIOD];
        }
    }
    memcpy(outgoing, pattern, sizeof pattern);
    if (options.corrupt) outgoing[MESSAGE / 2] ^= 1;
}

/*
 * The ends of every read are compared, which finds whatever is lost, doubled
 * or out of order; all of it in one read of FULL_EVERY, the first one included,
 * or a generator of bulk would be busy comparing. --full compares everything.
 */
static void verify(struct connection *c, const uint8_t *octets, size_t length)
{
    const uint8_t *expected = pattern + c->in % PERIOD;
    bool whole = options.full || length < 32 || c->reads++ % FULL_EVERY == 0;
    bool right = whole ? !memcmp(octets, expected, length)
                       : !memcmp(octets, expected, 16) &&
                             !memcmp(octets + length - 16, expected + length - 16, 16);
    bool target = c->role != CLIENT;
    c->in += length;
    if (target) {
        atomic_fetch_add_explicit(&targets->received, length, memory_order_relaxed);
        if (!right) atomic_fetch_add_explicit(&targets->wrong, 1, memory_order_relaxed);
    } else {
        received += length;
        wrong += !right;
    }
}

/* -- flows: both ends of bulk ---------------------------------------------- */

/*
 * The client is the first to speak, as in HTTP: there are servers that mix what
 * a target says at once with their own reply (asyncio-socks-server does).
 */

static uint32_t flow_events(const struct connection *c)
{
    bool may = c->role == CLIENT || c->in > 0;
    return EPOLLIN | (may && c->out < c->to_send ? EPOLLOUT : 0);
}

/* Carry what is ready; false once this end has nothing more to do, or is broken. */
static bool flow(struct connection *c, uint32_t events)
{
    if (events & EPOLLERR) return false;
    if (events & EPOLLOUT && c->out < c->to_send) {
        uint64_t left = c->to_send - c->out;
        ssize_t sent = send(c->fd, outgoing + c->out % PERIOD, left < CHUNK ? left : CHUNK,
                            MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent > 0) {
            c->out += (uint64_t)sent;
            if (c->role == FLOW)
                atomic_fetch_add_explicit(&targets->sent, (uint64_t)sent, memory_order_relaxed);
        }
        if (c->out == c->to_send) {
            shutdown(c->fd, SHUT_WR);
            if (!c->read_ended) watch(c, EPOLL_CTL_MOD, EPOLLIN);
        }
    }
    if (events & (EPOLLIN | EPOLLHUP) && !c->read_ended) {
        ssize_t length = recv(c->fd, scratch, CHUNK, 0);
        if (length < 0 && errno != EAGAIN) return false;
        if (length > 0) {
            bool first = c->in == 0;
            verify(c, scratch, (size_t)length);
            if (first && c->to_send) watch(c, EPOLL_CTL_MOD, flow_events(c));
        }
        if (length == 0) {
            c->read_ended = true;
            if (c->out < c->to_send && c->to_send != UNLIMITED) watch(c, EPOLL_CTL_MOD, EPOLLOUT);
        }
    }
    return !(c->read_ended && (c->out >= c->to_send || c->to_send == UNLIMITED));
}

/* -- the targets' process -------------------------------------------------- */

/*
 * Listen at one port of 127.0.0.1 .. 127.0.0.<addresses>. Thousands of
 * connections a second to one address and port would run into those that are
 * in TIME_WAIT; to eight they do not.
 */
static void listen_on(enum role role, unsigned addresses, struct sockaddr_in *address)
{
    int sockets[SPREAD];
    unsigned made = 0;
    for (unsigned attempt = 0; attempt < 20 && made < addresses; attempt++) {
        *address = (struct sockaddr_in){.sin_family = AF_INET};
        for (made = 0; made < addresses; made++) {
            socklen_t length = sizeof *address;
            address->sin_addr.s_addr = htonl(INADDR_LOOPBACK + made);
            int fd = sockets[made] =
                must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
            if (bind(fd, (struct sockaddr *)address, sizeof *address) || listen(fd, 4096)) {
                for (unsigned index = 0; index <= made; index++) close(sockets[index]);
                break;
            }
            getsockname(fd, (struct sockaddr *)address, &length);
        }
    }
    if (made < addresses) die(1, "no port is free at 127.0.0.1 to 127.0.0.%u", addresses);
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (unsigned index = 0; index < addresses; index++) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c) die(1, "no memory");
        *c = (struct connection){.fd = sockets[index], .role = role};
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* Datagrams are echoed at the port of the echo target. */
static void listen_udp(void)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c) die(1, "no memory");
    c->role = ECHO_UDP;
    c->fd = must(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &(int){4 << 20}, sizeof(int));
    must(bind(c->fd, (struct sockaddr *)&echo_address, sizeof echo_address), "bind");
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

static void accept_on(const struct connection *listener)
{
    for (unsigned turn = 0; turn < OPENING; turn++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct connection *c = calloc(1, sizeof *c);
        if (!c) die(1, "no memory");
        c->fd = fd;
        c->role = ECHO_TCP;
        if (listener->role == LISTEN_FLOW) {
            c->role = FLOW;
            c->to_send = options.down ? options.octets : 0;
        }
        watch(c, EPOLL_CTL_ADD, flow_events(c));
    }
}

/* What is in flight is one message, so that a send is never short. */
static bool echo(struct connection *c)
{
    ssize_t length = recv(c->fd, scratch, CHUNK, 0);
    if (length <= 0) return length < 0 && errno == EAGAIN;
    return send(c->fd, scratch, (size_t)length, MSG_NOSIGNAL) == length;
}

static void echo_datagrams(const struct connection *c)
{
    for (unsigned turn = 0; turn < 64; turn++) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        ssize_t length = recvfrom(c->fd, scratch, CHUNK, 0, (struct sockaddr *)&peer, &size);
        if (length < 0) return;
        sendto(c->fd, scratch, (size_t)length, 0, (struct sockaddr *)&peer, size);
    }
}

__attribute__((noreturn)) static void be_targets(uint64_t until)
{
    struct epoll_event events[EVENTS];
    while (now() < until) {
        int ready = epoll_wait(epoll, events, EVENTS, 1000);
        for (int index = 0; index < ready; index++) {
            struct connection *c = events[index].data.ptr;
            bool goes_on = true;
            switch (c->role) {
            case LISTEN_ECHO:
            case LISTEN_FLOW: accept_on(c); break;
            case ECHO_UDP: echo_datagrams(c); break;
            case ECHO_TCP: goes_on = echo(c); break;
            default: goes_on = flow(c, events[index].events); break;
            }
            if (!goes_on) {
                close(c->fd);
                free(c);
            }
        }
    }
    _exit(0);
}

/* -- the clients: RFC 1928 and RFC 1929 ------------------------------------ */

static void ended(struct connection *c);

static void fail(struct connection *c)
{
    if (c->step != OPEN) opening--;
    failed++;
    shut(c);
    ended(c);
}

static bool say(struct connection *c, const void *octets, size_t length)
{
    /* A few hundred octets always fit into the buffer of a new connection. */
    return send(c->fd, octets, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static void begin(struct connection *c)
{
    struct sockaddr_in direct = c->chats ? echo_address : flow_address;
    direct.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (c->chats ? (unsigned)(c - clients) % SPREAD : 0));
    const struct sockaddr *to = (struct sockaddr *)&direct;
    socklen_t length = sizeof direct;
    if (options.proxied) to = (struct sockaddr *)&options.proxy, length = options.proxy_length;
    c->fd = must(socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    c->role = CLIENT;
    c->step = CONNECTING;
    c->have = c->out = c->in = c->reads = 0;
    c->since = now();
    opening++;
    if (connect(c->fd, to, length) && errno != EINPROGRESS) {
        fail(c);
        return;
    }
    /* Edge-triggered: registered once, and never changed unless it becomes a flow. */
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT | EPOLLET);
}

static bool send_message(struct connection *c)
{
    c->since = now();
    if (!say(c, outgoing + c->out % PERIOD, MESSAGE)) return false;
    c->out += MESSAGE;
    return true;
}

static bool send_greeting(struct connection *c)
{
    c->step = GREETED;
    return say(c, options.user ? "\5\1\2" : "\5\1\0", 3);
}

static bool send_login(struct connection *c)
{
    uint8_t octets[2 * 256 + 3];
    size_t user = strlen(options.user), password = strlen(options.password);
    octets[0] = 1;
    octets[1] = (uint8_t)user;
    memcpy(octets + 2, options.user, user);
    octets[2 + user] = (uint8_t)password;
    memcpy(octets + 3 + user, options.password, password);
    c->step = LOGGING_IN;
    return say(c, octets, 3 + user + password);
}

static bool send_request(struct connection *c)
{
    uint8_t octets[10] = {5, options.mode == UDP ? 3 : 1, 0, 1};
    if (options.mode != UDP) { /* else 0.0.0.0:0: we do not say where we will send from */
        struct sockaddr_in to = c->chats ? echo_address : flow_address;
        uint32_t address =
            htonl(INADDR_LOOPBACK + (c->chats ? (unsigned)(c - clients) % SPREAD : 0));
        memcpy(octets + 4, &address, 4);
        memcpy(octets + 8, &to.sin_port, 2);
    }
    c->step = REQUESTED;
    return say(c, octets, sizeof octets);
}

static void drop(struct connection *c, size_t length)
{
    c->have -= length;
    memmove(c->unread, c->unread + length, c->have);
}

static void tunnel_opened(struct connection *c);

/* Go as far as what has arrived allows; false: the server has refused, or speaks nonsense. */
static bool converse(struct connection *c)
{
    if (c->step == GREETED && c->have >= 2) {
        bool wants_login = c->unread[1] == 2 && options.user;
        if (c->unread[0] != 5 || (c->unread[1] != 0 && !wants_login)) return false;
        drop(c, 2);
        if (!(wants_login ? send_login(c) : send_request(c))) return false;
    }
    if (c->step == LOGGING_IN && c->have >= 2) {
        if (c->unread[1] != 0) return false;
        drop(c, 2);
        if (!send_request(c)) return false;
    }
    if (c->step == REQUESTED && c->have >= 5) {
        if (c->unread[0] != 5 || c->unread[1] != 0) return false;
        size_t address = c->unread[3] == 1 ? 4 : c->unread[3] == 4 ? 16 : c->unread[4] + 1U;
        if (c->have < 4 + address + 2) return true;
        if (c->unread[3] == 1) {
            c->bound.sin_family = AF_INET;
            memcpy(&c->bound.sin_addr, c->unread + 4, 4);
            memcpy(&c->bound.sin_port, c->unread + 8, 2);
        }
        drop(c, 4 + address + 2);
        tunnel_opened(c);
    }
    return true;
}

static void dialogue(struct connection *c, uint32_t events)
{
    if (c->step == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error || events & EPOLLERR) fail(c);
        else if (!options.proxied) tunnel_opened(c);
        else if (!send_greeting(c)) fail(c);
        return;
    }
    ssize_t length = recv(c->fd, c->unread + c->have, sizeof c->unread - c->have, 0);
    if (length < 0 && errno == EAGAIN) return;
    if (length <= 0) {
        fail(c);
        return;
    }
    c->have += (size_t)length;
    if (!converse(c)) fail(c);
}

/* -- what open tunnels do -------------------------------------------------- */

static void fill(void)
{
    while (next < count && opening < OPENING) begin(&clients[next++]);
}

static void tunnel_opened(struct connection *c)
{
    c->step = OPEN;
    opening--;
    opened++;
    if (options.mode == CPS) {
        uint64_t since = c->since;
        if (!send_message(c)) fail(c);
        else c->since = since;
        return;
    }
    if (!c->chats && !options.up && !send_message(c)) {
        fail(c);
        return;
    }
    if (!c->chats && c->reads_on) {
        c->to_send = options.up ? options.octets : 0;
        c->to_receive = options.down ? options.octets : 0;
        c->read_ended = false;
        active++;
        verify(c, c->unread, c->have);
        watch(c, EPOLL_CTL_MOD, flow_events(c));
    } else if (!c->chats) {
        verify(c, c->unread, c->have);
        epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
    }
    fill();
}

/* A client has come to its end, whichever. */
static void ended(struct connection *c)
{
    if (options.mode == CPS) {
        if (now() < stop && failed < MOST_FAILURES) begin(c);
    } else {
        fill();
    }
}

static void echoed(struct connection *c)
{
    operations++;
    last = now();
    took(last - c->since);
    if (options.mode == CPS) {
        shut(c);
        ended(c);
    } else if (last < stop && !send_message(c)) {
        fail(c);
    }
}

static void client_ready(struct connection *c, uint32_t events)
{
    if (c->step == NOWHERE) return;
    if (c->step != OPEN) {
        dialogue(c, events);
        return;
    }
    if (options.mode == UDP) {
        /* The association lives as long as this connection. */
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) fail(c);
        return;
    }
    if (!c->chats) {
        if (!flow(c, events)) {
            active--;
            shut(c);
        }
        return;
    }
    ssize_t length = recv(c->fd, scratch, CHUNK, 0);
    if (length > 0) {
        verify(c, scratch, (size_t)length);
        if (c->in == c->out) echoed(c);
    } else if (length == 0 || errno != EAGAIN) {
        fail(c);
    }
}

static bool input_ended(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    char octet;
    return poll(&input, 1, 0) > 0 && read(0, &octet, 1) <= 0;
}

/* Clients that read, but slowly: a twentieth of a second's worth at a time. */
static void trickle(void)
{
    static uint64_t due;
    uint64_t time = now();
    if (time < due) return;
    due = time + SECOND / 20;
    size_t most = options.trickle / 20 < CHUNK ? options.trickle / 20 : CHUNK;
    for (unsigned index = 0; index < count; index++) {
        struct connection *c = &clients[index];
        if (c->step != OPEN || c->chats) continue;
        ssize_t length = recv(c->fd, scratch, most, 0);
        if (length > 0) verify(c, scratch, (size_t)length);
    }
}

static void work_until(uint64_t end, bool (*done)(void), bool holding)
{
    struct epoll_event events[EVENTS];
    while (!(done && done())) {
        uint64_t time = now();
        if (time >= end || failed >= MOST_FAILURES) return;
        uint64_t left = (end - time) / 1000000 + 1;
        int ready = epoll_wait(epoll, events, EVENTS, left < 20 ? (int)left : 20);
        for (int index = 0; index < ready; index++)
            client_ready(events[index].data.ptr, events[index].events);
        if (options.trickle && holding) trickle();
        if (options.hold && holding && input_ended()) return;
    }
}

static bool all_settled(void) { return opened + failed >= count; }
static bool all_ended(void)
{
    /* A client with nothing more to do has sent everything, but the kernel may have it still. */
    bool counted = options.up && options.octets != UNLIMITED;
    return active == 0 && (!counted || targets->received >= opened * options.octets);
}
static bool none_open(void)
{
    for (unsigned index = 0; index < count; index++)
        if (clients[index].step != NOWHERE) return false;
    return true;
}
static bool all_echoed(void) { return operations + failed >= opened; }

static void open_all(void)
{
    fill();
    work_until(now() + 30 * SECOND, all_settled, false);
}

/* -- UDP ------------------------------------------------------------------- */

struct association {
    int fd;
    uint64_t sent, in_flight, heard;
    uint64_t departed[RING]; /* by number; 0 once it has come back or was given up */
};

static uint64_t lost, late;

static void associate(struct association *a, const struct connection *c)
{
    struct sockaddr_storage relay;
    socklen_t length = sizeof(struct sockaddr_in);
    memcpy(&relay, &echo_address, sizeof echo_address);
    if (options.proxied) {
        memcpy(&relay, &c->bound, sizeof c->bound);
        if (c->bound.sin_addr.s_addr == htonl(INADDR_ANY)) {
            memcpy(&relay, &options.proxy, sizeof relay);
            length = options.proxy_length;
            /* sin_port and sin6_port are at the same place. */
            ((struct sockaddr_in *)&relay)->sin_port = c->bound.sin_port;
        } else if (ntohl(c->bound.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET) {
            die(1, "the server's UDP relay is not on the loopback");
        }
    }
    a->fd = must(socket(relay.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
    setsockopt(a->fd, SOL_SOCKET, SO_RCVBUF, &(int){4 << 20}, sizeof(int));
    must(connect(a->fd, (struct sockaddr *)&relay, length), "connect");
    a->heard = now();
}

static size_t udp_header(uint8_t *octets)
{
    if (!options.proxied) return 0;
    memcpy(octets, "\0\0\0\1", 4);
    memcpy(octets + 4, &echo_address.sin_addr, 4);
    memcpy(octets + 8, &echo_address.sin_port, 2);
    return 10;
}

static bool send_datagram(struct association *a)
{
    uint8_t octets[10 + MESSAGE];
    size_t header = udp_header(octets);
    uint64_t number = a->sent;
    memcpy(octets + header, &number, sizeof number);
    memcpy(octets + header + sizeof number, outgoing + number % PERIOD + sizeof number,
           MESSAGE - sizeof number);
    if (send(a->fd, octets, header + MESSAGE, 0) < 0) return false;
    a->departed[a->sent++ % RING] = now();
    a->in_flight++;
    return true;
}

static void receive_datagrams(struct association *a)
{
    uint8_t octets[512], expected[10];
    size_t header = udp_header(expected);
    for (unsigned turn = 0; turn < 64; turn++) {
        ssize_t length = recv(a->fd, octets, sizeof octets, 0);
        if (length < 0) return;
        uint64_t number;
        if ((size_t)length != header + MESSAGE || memcmp(octets, expected, header)) {
            wrong++;
            continue;
        }
        memcpy(&number, octets + header, sizeof number);
        if (number >= a->sent ||
            memcmp(octets + header + sizeof number, pattern + number % PERIOD + sizeof number,
                   MESSAGE - sizeof number)) {
            wrong++;
            continue;
        }
        if (a->sent - number > RING || !a->departed[number % RING]) {
            late++; /* or came twice */
            continue;
        }
        last = a->heard = now();
        took(last - a->departed[number % RING]);
        a->departed[number % RING] = 0;
        a->in_flight--;
        operations++;
    }
}

/* Nothing for a fifth of a second: what is under way will not come any more. */
static void give_up(struct association *a)
{
    lost += a->in_flight;
    a->in_flight = 0;
    memset(a->departed, 0, sizeof a->departed);
    a->heard = now();
}

static double exchange_datagrams(void)
{
    struct association *associations = calloc(count, sizeof *associations);
    struct pollfd *ready = calloc(count, sizeof *ready);
    if (!associations || !ready) die(1, "no memory");
    unsigned made = 0;
    for (unsigned index = 0; index < count; index++)
        if (clients[index].step == OPEN) associate(&associations[made++], &clients[index]);
    uint64_t start = now(), sent = 0;
    bool sending = made > 0;
    uint64_t end = start + (uint64_t)(options.seconds * SECOND);
    uint64_t patience = end + SECOND / 5; /* for what is still under way */
    while (made > 0) {
        uint64_t time = now(), flying = 0;
        sending = time < end;
        for (unsigned index = 0; index < made && sending; index++) {
            struct association *a = &associations[index];
            if (a->in_flight && time - a->heard > SECOND / 5) give_up(a);
            uint64_t due = options.rate ? (time - start) * options.rate / SECOND : UNLIMITED;
            while (a->in_flight < options.depth && sent < due && send_datagram(a)) sent++;
        }
        for (unsigned index = 0; index < made; index++) flying += associations[index].in_flight;
        if (!sending && (!flying || time >= patience)) break;
        for (unsigned index = 0; index < made; index++)
            ready[index] = (struct pollfd){.fd = associations[index].fd, .events = POLLIN};
        poll(ready, made, 1);
        for (unsigned index = 0; index < made; index++)
            if (ready[index].revents) receive_datagrams(&associations[index]);
    }
    for (unsigned index = 0; index < made; index++) {
        lost += associations[index].in_flight;
        close(associations[index].fd);
    }
    free(associations);
    free(ready);
    return ((last > start ? last : now()) - start) / 1e9;
}

/* -- the modes ------------------------------------------------------------- */

static void print_latency(void)
{
    printf(", \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f", quantile(.5), quantile(.99),
           slowest / 1e3);
}

static double cpu_seconds(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void ready(void)
{
    if (options.hold) fputs("ready\n", stderr);
}

/* Run the mode, print its own keys; gives the octets that are missing. */
static uint64_t run(void)
{
    uint64_t length = (uint64_t)(options.seconds * SECOND), missing = 0, start;
    double seconds = 0;
    if (options.mode == CPS) {
        start = now();
        stop = start + length;
        for (unsigned index = 0; index < count; index++) begin(&clients[index]);
        work_until(stop + 5 * SECOND, none_open, false);
        seconds = (last > start ? last - start : length) / 1e9;
        for (unsigned index = 0; index < count; index++)
            if (clients[index].step != NOWHERE) missing += MESSAGE, shut(&clients[index]);
        printf("\"connections\": %" PRIu64 ", \"per_second\": %.1f", operations,
               (double)operations / seconds);
        print_latency();
    } else if (options.mode == BULK) {
        open_all();
        uint64_t early = received + targets->received;
        start = now();
        work_until(start + length, all_ended, false);
        seconds = (now() - start) / 1e9;
        uint64_t down = received, up = targets->received;
        for (unsigned index = 0; index < count; index++) {
            struct connection *c = &clients[index];
            if (options.octets != UNLIMITED && options.down) missing += options.octets - c->in;
        }
        if (options.octets != UNLIMITED && options.up)
            missing += (uint64_t)count * options.octets - up;
        printf("\"octets\": %" PRIu64 ", \"down\": %" PRIu64 ", \"up\": %" PRIu64
               ", \"gb_per_second\": %.4f",
               down + up, down, up, (double)(down + up - early) / seconds / 1e9);
        operations = down + up;
    } else if (options.mode == UDP) {
        if (options.proxied) open_all();
        else for (; opened < count; opened++) clients[opened].step = OPEN;
        seconds = exchange_datagrams();
        printf("\"operations\": %" PRIu64 ", \"per_second\": %.1f, \"lost\": %" PRIu64
               ", \"late\": %" PRIu64,
               operations, (double)operations / seconds, lost, late);
        print_latency();
    } else {
        open_all();
        ready();
        start = now();
        stop = start + length;
        if (options.mode == IDLE) {
            work_until(stop, NULL, true);
            seconds = (now() - start) / 1e9;
            stop = 0; /* one message each, no more */
        }
        for (unsigned index = 0; index < count; index++) {
            struct connection *c = &clients[index];
            if (c->step == OPEN && c->chats && !send_message(c)) fail(c);
        }
        if (options.mode == IDLE) {
            work_until(now() + 5 * SECOND, all_echoed, false);
            printf("\"alive\": %" PRIu64, operations);
            missing = (opened - operations) * MESSAGE;
        } else {
            work_until(stop, NULL, true);
            seconds = ((last > start ? last : now()) - start) / 1e9;
            printf("\"operations\": %" PRIu64 ", \"per_second\": %.1f", operations,
                   (double)operations / seconds);
            if (options.mode == STALL)
                printf(", \"sent\": %" PRIu64 ", \"read\": %" PRIu64, targets->sent,
                       received - operations * MESSAGE);
            print_latency();
        }
    }
    printf(", \"seconds\": %.3f", seconds);
    return missing;
}

/* -- the command line ------------------------------------------------------ */

static uint64_t number(const char *text, const char *name, uint64_t least, uint64_t most)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || value < least || value > most)
        die(2, "--%s is a number from %" PRIu64 " to %" PRIu64, name, least, most);
    return value;
}

static double seconds(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value > 0 && value <= 86400))
        die(2, "--seconds is a number, 86400 at most");
    return value;
}

/* HOST:PORT or [HOST]:PORT, of the loopback and nothing else. */
static void parse_proxy(const char *text)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host) die(2, "--proxy is HOST:PORT");
    size_t length = (size_t)(colon - text);
    bool brackets = length > 2 && text[0] == '[' && text[length - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(brackets ? length - 2 : length),
             brackets ? text + 1 : text);
    uint16_t port = htons((uint16_t)number(colon + 1, "proxy's port", 1, 65535));
    struct sockaddr_in *four = (struct sockaddr_in *)&options.proxy;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&options.proxy;
    if (!brackets && inet_pton(AF_INET, host, &four->sin_addr) == 1 &&
        ntohl(four->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET) {
        four->sin_family = AF_INET;
        four->sin_port = port;
        options.proxy_length = sizeof *four;
    } else if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1 &&
               IN6_IS_ADDR_LOOPBACK(&six->sin6_addr)) {
        six->sin6_family = AF_INET6;
        six->sin6_port = port;
        options.proxy_length = sizeof *six;
    } else {
        die(2, "%s is not an address of the loopback, and this loads nothing else", host);
    }
    options.proxied = true;
}

static void parse(int argc, char **argv)
{
    enum { PROXY = 1, STREAMS, SECONDS, DIRECTION, OCTETS, USER, PASSWORD, DEPTH, RATE, TRICKLE,
           FULL, HOLD, CORRUPT };
    static const struct option known[] = {
        {"proxy", required_argument, NULL, PROXY},
        {"streams", required_argument, NULL, STREAMS},
        {"seconds", required_argument, NULL, SECONDS},
        {"direction", required_argument, NULL, DIRECTION}, /* of bulk */
        {"octets", required_argument, NULL, OCTETS},       /* a stream, then FIN */
        {"user", required_argument, NULL, USER},
        {"password", required_argument, NULL, PASSWORD},
        {"depth", required_argument, NULL, DEPTH},     /* datagrams in flight, each association */
        {"rate", required_argument, NULL, RATE},       /* datagrams a second, all together */
        {"trickle", required_argument, NULL, TRICKLE}, /* octets a second, each reader of stall */
        {"full", no_argument, NULL, FULL},             /* compare every octet */
        {"hold", no_argument, NULL, HOLD}, /* say "ready" (stderr); end when the input does */
        {"corrupt", no_argument, NULL, CORRUPT}, /* send one wrong bit: it must be noticed */
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case PROXY: parse_proxy(optarg); break;
        case STREAMS: options.streams = (unsigned)number(optarg, "streams", 1, 100000); break;
        case SECONDS: options.seconds = seconds(optarg); break;
        case OCTETS: options.octets = number(optarg, "octets", 1, UINT64_C(1) << 40); break;
        case USER: options.user = optarg; break;
        case PASSWORD: options.password = optarg; break;
        case DEPTH: options.depth = (unsigned)number(optarg, "depth", 1, RING / 2); break;
        case RATE: options.rate = number(optarg, "rate", 1, 10000000); break;
        case TRICKLE: options.trickle = number(optarg, "trickle", 20, 1 << 30); break;
        case FULL: options.full = true; break;
        case HOLD: options.hold = true; break;
        case CORRUPT: options.corrupt = true; break;
        case DIRECTION:
            options.up = !strcmp(optarg, "up") || !strcmp(optarg, "both");
            options.down = !strcmp(optarg, "down") || !strcmp(optarg, "both");
            if (!options.up && !options.down) die(2, "--direction is down, up or both");
            break;
        default: exit(2); /* getopt has said it */
        }
    }
    if (optind != argc - 1) die(2, "usage: load MODE [options]");
    int mode = -1;
    for (int index = 0; index < (int)(sizeof MODES / sizeof *MODES); index++)
        if (!strcmp(argv[optind], MODES[index])) mode = index;
    if (mode < 0) die(2, "the modes are bulk, cps, rr, idle, stall and udp");
    options.mode = (enum mode)mode;
    if (!options.user != !options.password) die(2, "--user goes with --password");
    if (options.user && (strlen(options.user) > 255 || strlen(options.password) > 255))
        die(2, "a user name and a password have 255 octets at most");
    if (options.mode == STALL) options.up = false, options.down = true;
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    make_pattern();
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    targets = mmap(NULL, sizeof *targets, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (targets == MAP_FAILED) die(1, "mmap: %s", strerror(errno));

    unsigned most_seconds = (unsigned)options.seconds + 60;
    epoll = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    listen_on(LISTEN_ECHO, SPREAD, &echo_address);
    listen_on(LISTEN_FLOW, 1, &flow_address);
    listen_udp();
    pid_t parent = getpid(), child = must(fork(), "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        be_targets(now() + most_seconds * SECOND);
    }
    epoll = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"); /* the old one is the child's */
    alarm(most_seconds); /* whatever happens */

    /* Of stall, the last client is the one that chats. */
    count = options.streams + (options.mode == STALL);
    clients = calloc(count, sizeof *clients);
    if (!clients) die(1, "no memory");
    for (unsigned index = 0; index < count; index++) {
        clients[index].fd = -1;
        clients[index].chats = options.mode == STALL ? index == count - 1 : options.mode != BULK;
        clients[index].reads_on = options.mode != STALL;
    }
    printf("{\"mode\": \"%s\", \"via\": \"%s\", \"streams\": %u, ", MODES[options.mode],
           options.proxied ? "proxy" : "direct", options.streams);
    uint64_t missing = run();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    wrong += targets->wrong;
    printf(", \"opened\": %u, \"failed\": %u, \"wrong\": %" PRIu64 ", \"missing\": %" PRIu64
           ", \"load_cpu_seconds\": %.3f}\n",
           opened, failed, wrong, missing, cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN));
    bool worked = options.mode == IDLE ? opened > 0 : operations > 0;
    return wrong || missing || !worked;
}
