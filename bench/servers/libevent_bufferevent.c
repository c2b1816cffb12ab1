/* libevent with bufferevents on the sockets; libevent_echo.h has what they do. */
#include "libevent_echo.h"

static struct bufferevent *make(struct event_base *base, evutil_socket_t fd) {
    return bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
}

int main(void) {
    return serve(make);
}
