#include "transports/file/source.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/base/invalid.h"
#include "core/jobs/executor.h"

static int read_size(struct file_source *source) {
    struct stat status;
    if (source->loop->sys->fstat(source->file, &status) < 0)
        return -errno;
    source->regular = S_ISREG(status.st_mode);
    source->size = (uint64_t)status.st_size;
    return 0;
}

int tram__file_source_open(struct file_source *source, tram_loop *loop, int file, int64_t offset, int64_t count) {
    if (offset < 0 || count <= 0)
        return tram__invalid(offset < 0 ? "offset" : "count");
    /* No position behind the largest one. */
    int64_t most = INT64_MAX - offset;
    *source = (struct file_source){
        .loop = loop, .file = file, .offset = (uint64_t)offset, .count = (uint64_t)MIN(count, most)};
    source->sequential = loop->sys->lseek(file, 0, SEEK_CUR) < 0 && errno == ESPIPE;
    return read_size(source);
}

static bool at_end(const struct file_source *source) {
    return source->regular && source->offset + source->sent >= source->size;
}

bool tram__file_source_done(struct file_source *source) {
    if (source->sent >= source->count)
        return true;
    /* The file may have grown. */
    return at_end(source) && (read_size(source) < 0 || at_end(source));
}

struct io_range tram__file_source_next(const struct file_source *source, size_t limit) {
    uint64_t left = source->count - source->sent;
    return (struct io_range){
        .file = source->file,
        .offset = (off_t)(source->offset + source->sent),
        .size = MIN(left, limit),
    };
}

bool tram__file_source_refused(int code) {
    return code == -EINVAL || code == -ENOSYS || code == -EOPNOTSUPP || code == -ESPIPE;
}

bool tram__connection_lost(int code) {
    switch (-code) {
    case ECONNRESET:
    case EPIPE:
    case ENOTCONN:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
        return true;
    default:
        return false;
    }
}

int tram__sendfile_code(int code) {
    return code == -EPIPE || code == -ENOTCONN ? -ECONNRESET : code;
}

/* ---- Blocks ---- */

/*
 * Reading is the executor's work and may outlive the operation, even the loop: it makes its system calls itself. After
 * a cancel the user may close the file, and its number may become another's, so the job has a descriptor of its own.
 */
struct block_job {
    struct job job;
    int file;
    bool sequential;
    off_t offset;
    size_t size;
    ssize_t result; /* bytes, or -errno */
    struct file_block block;
    char data[];
};

static ssize_t read_part(struct block_job *job) {
    ssize_t result;
    do
        result = job->sequential ? read(job->file, job->data, job->size)
                                 : pread(job->file, job->data, job->size, job->offset);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

static void block_run(struct job *job) {
    struct block_job *block = (struct block_job *)job;
    block->result = read_part(block);
}

static void block_complete(struct job *job, tram_future *future) {
    struct block_job *block = (struct block_job *)job;
    if (block->result < 0) {
        tram__future_fail_code(future, (int)block->result, job->kind->name);
        return;
    }
    block->block = (struct file_block){.data = block->data, .size = (size_t)block->result};
    tram__future_finish(future, &block->block);
}

static void block_destroy(struct job *job) {
    struct block_job *block = (struct block_job *)job;
    close(block->file);
}

static const struct job_kind block_kind = {
    .name = "read",
    .run = block_run,
    .complete = block_complete,
    .destroy = block_destroy,
};

static void forget_block(struct file_source *source) {
    tram_future *reading = source->reading;
    source->reading = NULL;
    if (reading)
        tram_future_release(reading);
}

int tram__file_source_read(struct file_source *source, size_t limit, tram_future_callback done, void *arg) {
    forget_block(source);
    if (source->sequential && source->offset)
        return -ESPIPE;
    struct io_range range = tram__file_source_next(source, limit);
    struct block_job *job;
    int status = tram__job_new(source->loop, &block_kind, sizeof *job + range.size, &job);
    if (status)
        return status;
    const struct sys *sys = source->loop->sys;
    job->sequential = source->sequential;
    job->file = sys->fcntl(source->file, F_DUPFD_CLOEXEC, 0);
    job->offset = range.offset;
    job->size = range.size;
    status = job->file < 0 ? -errno : tram__job_submit(source->loop, NULL, &job->job, &source->reading);
    if (status) {
        if (job->file >= 0)
            sys->close(job->file);
        tram__job_free(&job->job);
        return status;
    }
    source->read_done = done;
    source->read_arg = arg;
    return tram_future_add_done_callback(source->reading, done, arg);
}

void tram__file_source_close(struct file_source *source) {
    if (source->reading) {
        tram__future_unhook(source->reading, source->read_done, source->read_arg);
        tram_future_cancel(source->reading);
        forget_block(source);
    }
    if (source->sent)
        source->loop->sys->lseek(source->file, (off_t)(source->offset + source->sent), SEEK_SET);
    source->sent = 0;
}
