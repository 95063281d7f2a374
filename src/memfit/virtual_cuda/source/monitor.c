/* libnvidia-ml: what watches a GPU, here one that does nothing. PyTorch asks it before it maps memory
 * of expandable segments and when memory runs out; scripts log it. A function that is not here is one
 * that an older driver would not have either.
 */
#include "card.h"
#include <string.h>
#include <unistd.h>

/* nvmlReturn_t of nvml.h. */
enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7 };

uint64_t memfit_used_bytes(int device);

static int count_of_cards(void) { return (int)described("MEMFIT_CARD_COUNT", 1); }
static int number_of(void *device) { return (int)((uintptr_t)device - 1); }
static int give(void **device, int number) {
    *device = (void *)((uintptr_t)number + 1);
    return number >= 0 && number < count_of_cards() ? OK : INVALID_ARGUMENT;
}

int nvmlInit_v2(void) { return OK; }
int nvmlInitWithFlags(unsigned flags) { return OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int error) { return error ? "not there on the virtual GPU" : "no error"; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = CUDA_VERSION; return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = CUDA_VERSION; return OK; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "virtual");
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) { *count = count_of_cards(); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { return give(device, index); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *text, void **device) {
    unsigned domain = 0, bus = 0; /* numbered from 1: see cudaDeviceGetPCIBusId */
    sscanf(text, "%x:%x", &domain, &bus);
    return give(device, (int)bus - 1);
}
int nvmlDeviceGetIndex(void *device, unsigned *index) { *index = number_of(device); return OK; }
int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    const char *name = getenv("MEMFIT_CARD_NAME");
    snprintf(text, length, "%s", name ? name : "virtual GPU");
    return OK;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-00000000-0000-0000-0000-%012d", number_of(device));
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = CARD_MAJOR;
    *minor = CARD_MINOR;
    return OK;
}

struct memory { unsigned long long total, available, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, available, used; };

int nvmlDeviceGetMemoryInfo(void *device, struct memory *found) {
    found->total = described("MEMFIT_CARD_BYTES", 12ull << 30);
    found->used = memfit_used_bytes(number_of(device));
    found->available = found->total - found->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory_v2 *found) {
    struct memory known;
    nvmlDeviceGetMemoryInfo(device, &known);
    found->total = known.total;
    found->reserved = 0;
    found->available = known.available;
    found->used = known.used;
    return OK;
}

/* nvmlProcessInfo_t; this process is the only one. */
struct process { unsigned number; unsigned long long used; unsigned instances[2]; };

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *found) {
    int is_room = found && *count;
    *count = 1;
    if (!is_room) return TOO_SMALL;
    *found = (struct process){getpid(), memfit_used_bytes(number_of(device)), {~0u, ~0u}};
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, struct process *found) {
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, found);
}
/* Windows and games. */
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *found) {
    *count = 0;
    return OK;
}

struct utilization { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *device, struct utilization *found) {
    *found = (struct utilization){0, 0};
    return OK;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) { *celsius = 0; return OK; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = 0; return OK; }
int nvmlDeviceGetClockInfo(void *device, int clock, unsigned *megahertz) { *megahertz = 0; return OK; }

/* One card, or several that know nothing of each other. */
int nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, int *type) {
    return NOT_SUPPORTED;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, void *found) {
    return NOT_SUPPORTED;
}
/* Begins like all versions of nvmlGpuFabricInfoV_t; state 0 is "not supported". */
struct fabric { unsigned version; char cluster[16]; int status; unsigned clique; char state; };
int nvmlDeviceGetGpuFabricInfoV(void *device, struct fabric *found) {
    found->state = 0;
    return OK;
}
