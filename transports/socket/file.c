#include "transports/socket/file.h"

#include <errno.h>
#include <stddef.h>
#include <sys/un.h>

/* NULL: the address has no file. The text ends within the storage, which is longer than any path. */
static const char *path_of(const tram_socket_address *address) {
    size_t begin = offsetof(struct sockaddr_un, sun_path);
    const char *path = (const char *)&address->address + begin;
    return address->address.ss_family == AF_UNIX && address->size > begin && path[0] ? path : NULL;
}

static int gone_is_fine(void) {
    return errno == ENOENT ? 0 : -errno;
}

int tram__socket_file_clear(const struct sys *sys, const tram_socket_address *address) {
    const char *path = path_of(address);
    struct stat found;
    if (!path)
        return 0;
    if (sys->stat(path, &found) < 0)
        return gone_is_fine();
    return S_ISSOCK(found.st_mode) && sys->unlink(path) < 0 ? gone_is_fine() : 0;
}

static void log_trouble(tram_loop *loop, int status, const char *what, const tram_socket_address *address) {
    if (status)
        tram__log(loop, TRAM_LOG_ERROR, "unable to %s at %s: %s", what, path_of(address), tram_error_text(status));
}

void tram__socket_file_remove_stale(tram_loop *loop, const tram_socket_address *address) {
    log_trouble(loop, tram__socket_file_clear(loop->sys, address), "check or remove a stale socket", address);
}

struct socket_file tram__socket_file_at(const struct sys *sys, const tram_socket_address *address) {
    const char *path = path_of(address);
    struct stat found;
    if (!path || sys->stat(path, &found) < 0)
        return (struct socket_file){0};
    return (struct socket_file){.known = true, .device = found.st_dev, .inode = found.st_ino};
}

int tram__socket_file_unlink(const struct sys *sys, const tram_socket_address *address,
                             const struct socket_file *file) {
    const char *path = path_of(address);
    struct stat found;
    if (!path || !file->known)
        return 0;
    if (sys->stat(path, &found) < 0)
        return gone_is_fine();
    if (found.st_dev != file->device || found.st_ino != file->inode)
        return 0;
    return sys->unlink(path) < 0 ? gone_is_fine() : 0;
}

void tram__socket_file_remove(tram_loop *loop, const tram_socket_address *address, const struct socket_file *file) {
    log_trouble(loop, tram__socket_file_unlink(loop->sys, address, file), "remove the socket", address);
}
