/* Servers of streams: those of protocols, with the factory of handler.c. */
#include <errno.h>

#include "core/base/invalid.h"
#include "core/base/memory.h"
#include "core/loop/report.h"
#include "core/tasks/task.h"
#include "protocols/streams/streams.h"

/* What a server keeps of its service. Of no loop: several may use it. */
struct served {
    tram_stream_service service; /* first: it is what the factory gets */
    tram_discard discard;
};

static void served_free(void *arg) {
    memory_put(&tram__memory_default, arg, sizeof(struct served));
}

static void discard_served(void *arg) {
    struct served *served = arg;
    if (served->discard)
        served->discard(served->service.arg);
    served_free(served);
}

static int served_new(const tram_stream_service *service, tram_discard discard, struct served **ret_served) {
    if (!service || !service->handler)
        return tram__invalid("handler");
    if (reserved_used(service))
        return tram__invalid("reserved");
    struct served *served = memory_get(&tram__memory_default, sizeof *served);
    if (!served)
        return -ENOMEM;
    *served = (struct served){.service = *service, .discard = discard};
    *ret_served = served;
    return 0;
}

static int await_server(tram_future *future, const void *where, tram_server **ret_server) {
    void *server = NULL;
    tram_future_hold(future);
    int status = tram__streams_await(future, &server, where);
    tram_server *unwanted = status ? tram_future_server(future) : NULL; /* cancelled at the last moment */
    if (!status)
        *ret_server = server;
    if (unwanted)
        tram_server_close(unwanted);
    tram_server_release(unwanted);
    tram_future_release(future);
    return status;
}

int tram_start_server(const tram_stream_service *service, const char *host, const char *port,
                      const tram_server_options *options, tram_server **ret_server) {
    tram_server_options changed = options ? *options : (tram_server_options){0};
    tram_loop *loop = opening_loop();
    struct served *served;
    if (!loop)
        return TRAM_ESTATE;
    int status = served_new(service, changed.discard, &served);
    if (status)
        return status;
    changed.discard = discard_served;
    tram_future *future;
    status = tram_loop_create_server(loop, tram_stream_factory, served, host, port, &changed, &future);
    if (status) {
        served_free(served);
        return status;
    }
    return await_server(future, __builtin_return_address(0), ret_server);
}

int tram_start_unix_server(const tram_stream_service *service, const void *path, size_t path_size,
                           const tram_unix_server_options *options, tram_server **ret_server) {
    tram_unix_server_options changed = options ? *options : (tram_unix_server_options){0};
    tram_loop *loop = opening_loop();
    struct served *served;
    if (!loop)
        return TRAM_ESTATE;
    int status = served_new(service, changed.discard, &served);
    if (status)
        return status;
    changed.discard = discard_served;
    tram_future *future;
    status = tram_loop_create_unix_server(loop, tram_stream_factory, served, path, path_size, &changed, &future);
    if (status) {
        served_free(served);
        return status;
    }
    return await_server(future, __builtin_return_address(0), ret_server);
}

int tram_runtime_start_server(tram_runtime *runtime, const tram_stream_service *service, const char *host,
                              const char *port, const tram_server_options *options, tram_runtime_server **ret_server,
                              tram_error *ret_error) {
    tram_server_options changed = options ? *options : (tram_server_options){0};
    struct served *served;
    int status = served_new(service, changed.discard, &served);
    if (status)
        return status;
    changed.discard = discard_served;
    status =
        tram_runtime_create_server(runtime, tram_stream_factory, served, host, port, &changed, ret_server, ret_error);
    if (status)
        served_free(served);
    return status;
}

int tram_runtime_start_unix_server(tram_runtime *runtime, const tram_stream_service *service, const void *path,
                                   size_t path_size, const tram_unix_server_options *options,
                                   tram_runtime_server **ret_server, tram_error *ret_error) {
    tram_unix_server_options changed = options ? *options : (tram_unix_server_options){0};
    struct served *served;
    int status = served_new(service, changed.discard, &served);
    if (status)
        return status;
    changed.discard = discard_served;
    status = tram_runtime_create_unix_server(runtime, tram_stream_factory, served, path, path_size, &changed,
                                             ret_server, ret_error);
    if (status)
        served_free(served);
    return status;
}
