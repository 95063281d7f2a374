/* libcuda: the driver, for those who load it by name; the runtime has its functions. */
#include "card.h"

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = CUDA_VERSION; return 0; }
int cuDeviceGetCount(int *count) { *count = (int)described("MEMFIT_CARD_COUNT", 1); return 0; }
int cuDeviceGetName(char *text, int length, int device) {
    const char *name = getenv("MEMFIT_CARD_NAME");
    snprintf(text, length, "%s", name ? name : "virtual GPU");
    return 0;
}
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        int *status) {
    *function = memfit_driver_entry(name);
    if (status) *status = 0;
    return 0;
}
