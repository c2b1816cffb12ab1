/*
 * A chat over all workers: one room, an actor, and members that are connections of any worker. What a member says is
 * copied once, however many hear it, and all hear everything in one order.
 *
 *     chat-server [--host H] [--port P] [--workers N]        ends on SIGINT or SIGTERM
 *
 * A member's first line is its name, every other line is said to all. A member that does not read is sent away when
 * 1 MiB waits for it: it costs the others nothing.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

enum { JOIN = 1, LEAVE, SAY };

/* What joins and leaves travels within the message. */
static_assert(sizeof(tram_address) == sizeof(((tram_message *)NULL)->bytes), "an address fits into a message");

/* ---- The room, on worker 0 ---- */

struct room {
    tram_actor base; /* first */
    tram_address *members;
    size_t count, capacity;
};

static int add_member(struct room *room, tram_address who) {
    if (room->count == room->capacity) {
        size_t capacity = room->capacity ? 2 * room->capacity : 16;
        tram_address *members = (tram_address *)realloc(room->members, capacity * sizeof *members);
        if (!members)
            return -ENOMEM;
        room->members = members;
        room->capacity = capacity;
    }
    room->members[room->count++] = who;
    return 0;
}

static void remove_member(struct room *room, tram_address who) {
    for (size_t i = 0; i < room->count; i++) {
        if (tram_address_equal(room->members[i], who)) {
            room->members[i] = room->members[--room->count];
            return;
        }
    }
}

static int room_message(tram_actor *self, tram_message *message) {
    struct room *room = (struct room *)self;
    tram_address who;
    if (message->tag == SAY) {
        tram_broadcast(room->members, room->count, message); /* a reference to the same bytes for each */
        return 0;
    }
    memcpy(&who, message->bytes, sizeof who);
    if (message->tag == LEAVE)
        remove_member(room, who);
    else if (add_member(room, who))
        fputs("chat-server: no memory for a member, who will hear nothing\n", stderr);
    return 0;
}

static void room_stopped(tram_actor *self, int reason) {
    struct room *room = (struct room *)self;
    (void)reason;
    free(room->members);
    free(room);
}

/* Before any connection comes the room has its name. */
static int start_worker(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    static const tram_actor_ops ops = {.message_received = room_message, .stopped = room_stopped};
    (void)state, (void)arg;
    if (worker != 0)
        return 0;
    struct room *room = (struct room *)calloc(1, sizeof *room);
    if (!room)
        return -ENOMEM;
    room->base.ops = &ops;
    int status = tram_loop_start_actor(loop, &room->base);
    if (status) {
        free(room);
        return status;
    }
    return tram_actor_register(&room->base, runtime, "room");
}

/* ---- Members, on any worker ---- */

struct member {
    tram_protocol base; /* first */
    tram_input input;   /* second, for the callbacks of tram/input.h */
    tram_address address, room;
    char name[33]; /* "": not told yet */
};

static int tell_room(const struct member *member, uint32_t tag) {
    tram_message message = {.tag = tag};
    memcpy(message.bytes, &member->address, sizeof member->address);
    return tram_post(member->room, &message);
}

/* Says "NAME" and `between` and the text; the room hands it to everybody. */
static int say(const struct member *member, const char *between, tram_bytes text) {
    char line[1024];
    int size = snprintf(line, sizeof line, "%s%s%.*s\n", member->name, between, (int)text.size, text.data);
    tram_buffer *shared = tram_buffer_copy(line, (size_t)size);
    if (!shared)
        return -ENOMEM;
    const tram_message message = {.type = &tram_buffer_message, .tag = SAY, .data = shared};
    int status = tram_post(member->room, &message);
    if (status)
        tram_buffer_release(shared); /* it was refused, so the reference is still ours */
    return status;
}

static int join(struct member *member, tram_bytes name) {
    if (name.size == 0 || name.size >= sizeof member->name || memchr(name.data, '\0', name.size))
        return TRAM_EVALUE; /* ends the connection */
    memcpy(member->name, name.data, name.size);
    int status = tell_room(member, JOIN);
    return status ? status : say(member, " is here", (tram_bytes){"", 0});
}

static int parse(tram_protocol *self, tram_input *input) {
    struct member *member = (struct member *)self;
    tram_bytes line;
    int status;
    while (!(status = tram_input_line(input, &line)) &&
           !(status = member->name[0] ? say(member, ": ", line) : join(member, line)))
        ;
    return status;
}

/* A connection_made that fails is reported, and its connection goes on: so it is ended here. */
static int member_made(tram_protocol *self, tram_transport *transport) {
    struct member *member = (struct member *)self;
    tram_runtime *runtime;
    int status = tram_loop_worker(tram_transport_get_loop(transport), &runtime, NULL);
    if (!status)
        status = tram_runtime_lookup(runtime, "room", &member->room);
    if (!status)
        status = tram_transport_address(transport, &member->address);
    if (status)
        tram_transport_abort(transport);
    return status;
}

/* Without memory for these posts the room keeps an address that names nobody. */
static int member_lost(tram_protocol *self, const tram_error *error) {
    struct member *member = (struct member *)self;
    (void)error;
    if (member->name[0] && !tell_room(member, LEAVE))
        say(member, " has gone", (tram_bytes){"", 0});
    return 0;
}

static int member_message(tram_protocol *self, tram_message *message) {
    return tram_transport_write_buffer(self->transport, (tram_buffer *)message->data);
}

static void member_released(tram_protocol *self) {
    tram_input_fini(&((struct member *)self)->input);
    free(self);
}

static int make_member(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {
        .connection_made = member_made,
        .data_received = tram_input_data_received,
        .eof_received = tram_input_eof_received,
        .connection_lost = member_lost,
        .pause_writing = tram_input_pause_writing,
        .resume_writing = tram_input_resume_writing,
        .released = member_released,
        .message_received = member_message,
    };
    (void)arg;
    struct member *member = (struct member *)calloc(1, sizeof *member);
    if (!member)
        return -ENOMEM;
    const tram_input_options options = {.limit = 900, .loop = loop, .protocol = &member->base, .parse = parse};
    member->base.ops = &ops;
    *ret_protocol = &member->base;
    return tram_input_init(&member->input, &options);
}

int main(int argc, char **argv) {
    const tram_server_limits limits = {.write_hard_limit = 1024 * 1024};
    const tram_server_options server = {.limits = &limits};
    const tram_runtime_options runtime = {.start = start_worker};
    const tram_serve_options options = {.name = "chat-server",
                                        .summary = "a chat: your first line is your name, the others are said to all",
                                        .port = "7004",
                                        .server = &server,
                                        .runtime = &runtime};
    return tram_serve_main(argc, argv, make_member, NULL, &options) ? EXIT_FAILURE : EXIT_SUCCESS;
}
