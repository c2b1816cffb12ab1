/* sendfile on sockets of the user's. */
#include <errno.h>

#include "core/base/invalid.h"
#include "transports/file/source.h"
#include "transports/sock/op.h"
#include "transports/socket/socket.h"
#include <tram/sendfile.h>

struct sock_sendfile {
    struct sock_op op;
    struct file_source source;
    bool blocks; /* from memory: the kernel does not do it */
    bool no_fallback;
    struct file_block block; /* what is left of the last one */
    int read_status;         /* how reading went wrong */
    bool read_end;
};

static int block_read(tram_future *future, void *arg) {
    struct sock_sendfile *sendfile = arg;
    void *value = NULL;
    sendfile->read_status = tram_future_result(future, &value);
    if (value) {
        sendfile->block = *(const struct file_block *)value;
        sendfile->read_end = sendfile->block.size == 0;
    }
    tram__sock_op_go(&sendfile->op);
    return 0;
}

/* One send of what was read, or the next read. */
static int send_block(struct sock_sendfile *sendfile) {
    const struct sys *sys = sendfile->op.future.loop->sys;
    struct file_block *block = &sendfile->block;
    if (sendfile->read_status)
        return sendfile->read_status;
    if (sendfile->read_end)
        return SOCK_DONE;
    if (block->size) {
        ssize_t sent = sys->send(sendfile->op.fd, block->data, block->size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return tram__sock_outcome(errno);
        block->data += sent;
        block->size -= (size_t)sent;
        sendfile->source.sent += (uint64_t)sent;
    }
    if (block->size)
        return SOCK_WAIT;
    if (sendfile->source.sent == sendfile->source.count)
        return SOCK_DONE;
    int status = tram__file_source_read(&sendfile->source, TRAM_SOCK_SENDFILE_BLOCK, block_read, sendfile);
    return status ? status : (int)SOCK_SUSPENDED;
}

static int send_part(struct sock_sendfile *sendfile) {
    struct file_source *source = &sendfile->source;
    if (!source->regular)
        return -EINVAL;
    if (tram__file_source_done(source))
        return SOCK_DONE;
    struct io_range range = tram__file_source_next(source, TRAM_SENDFILE_SIZE);
    ssize_t sent = sendfile->op.future.loop->sys->sendfile(sendfile->op.fd, range.file, &range.offset, range.size);
    if (sent < 0)
        return tram__sock_outcome(errno);
    source->sent += (uint64_t)sent;
    return !sent || tram__file_source_done(source) ? (int)SOCK_DONE : (int)SOCK_WAIT;
}

static int sendfile_attempt(struct sock_op *op, void **ret_value) {
    struct sock_sendfile *sendfile = (struct sock_sendfile *)op;
    int outcome = sendfile->blocks ? SOCK_WAIT : send_part(sendfile);
    if (!sendfile->source.sent && tram__file_source_refused(outcome)) {
        if (sendfile->no_fallback)
            return TRAM_ENOSENDFILE;
        sendfile->blocks = true;
    }
    if (sendfile->blocks)
        outcome = send_block(sendfile);
    *ret_value = sock_count(sendfile->source.sent);
    return tram__sendfile_code(outcome);
}

static void sendfile_end(struct sock_op *op) {
    tram__file_source_close(&((struct sock_sendfile *)op)->source);
}

static const struct sock_op_kind sendfile_kind = {
    .future = {.name = "sock_sendfile", .value = FUTURE_VALUE_COUNT, .cancel = tram__sock_op_cancel},
    .direction = IO_WRITE,
    .attempt = sendfile_attempt,
    .end = sendfile_end,
};

static int check_stream(const tram_loop *loop, int fd) {
    int type = 0;
    socklen_t size = sizeof type;
    if (loop->sys->getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return errno == ENOTSOCK ? tram__invalid("fd") : -errno;
    return type == SOCK_STREAM ? 0 : tram__invalid("fd");
}

int tram_loop_sock_sendfile(tram_loop *loop, int fd, int file, int64_t offset, int64_t count,
                            const tram_sendfile_options *options, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (options && reserved_used(options))
        return tram__invalid("reserved");
    struct file_source source;
    status = tram__file_source_open(&source, loop, file, offset, count);
    if (!status)
        status = check_stream(loop, fd);
    if (status)
        return status;
    struct sock_sendfile *sendfile;
    status = tram__sock_op_new(loop, fd, &sendfile_kind, sizeof *sendfile, ret_future, &sendfile);
    if (status)
        return status;
    sendfile->source = source;
    sendfile->no_fallback = options && options->no_fallback;
    tram__sock_op_go(&sendfile->op);
    return 0;
}
