/* The GPU that is played: the launcher describes it in the environment (see child.py). */
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static inline uint64_t described(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

#define CARD_MAJOR ((int)described("MEMFIT_CARD_MAJOR", 8))
#define CARD_MINOR ((int)described("MEMFIT_CARD_MINOR", 6))
#define CARD_MULTIPROCESSORS ((int)described("MEMFIT_CARD_MULTIPROCESSORS", 28))
#define CARD_SHARED_BYTES ((int)described("MEMFIT_CARD_SHARED_BYTES", 99 << 10))
#define CARD_THREADS ((int)described("MEMFIT_CARD_THREADS", 1536))

/* Notes that a library's workspaces are not counted; the runtime keeps it for who asks. */
void memfit_not_counted(const char *library);

/* A function of the driver, by name; the runtime has them. */
void *memfit_driver_entry(const char *name);
