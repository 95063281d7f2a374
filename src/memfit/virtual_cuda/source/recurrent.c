/* The part of libcudnn for recurrent layers: PyTorch asks how large weights and reserves are.
 *
 * The size of the weights follows from their shapes ("cudnnGetRNNWeightParams", cuDNN
 * documentation). How much is kept for backward only the library knows; the estimate is that of
 * memory/cuda/recurrent.py: what the equations of the layer need.
 */
#include "card.h"
#include <string.h>

enum { RELU, TANH, LSTM, GRU };
static const int GATES[] = {1, 1, 4, 3}, KEPT[] = {1, 1, 6, 5};

struct layers {
    int cell, biases, directions, inputs, hidden, projected, count;
    size_t element_bytes;
};
struct sequence {
    int steps, samples;
};

void *memfit_real(const char *name);

static size_t bytes_of(int type) { return type == 1 ? 8 : type == 0 ? 4 : 2; }

int cudnnCreateRNNDescriptor(void **descriptor) {
    *descriptor = calloc(1, sizeof(struct layers));
    return 0;
}
int cudnnDestroyRNNDescriptor(void *descriptor) { free(descriptor); return 0; }
int cudnnSetRNNDescriptor_v8(struct layers *of, int algorithm, int cell, int bias, int direction,
                             int input_mode, int type, int precision, int math, int inputs,
                             int hidden, int projected, int count, void *dropout, unsigned flags) {
    *of = (struct layers){cell,   bias == 0 ? 0 : bias == 2 ? 2 : 1, direction ? 2 : 1,
                          inputs, hidden, projected, count, bytes_of(type)};
    return 0;
}
int cudnnCreateRNNDataDescriptor(void **descriptor) {
    *descriptor = calloc(1, sizeof(struct sequence));
    return 0;
}
int cudnnDestroyRNNDataDescriptor(void *descriptor) { free(descriptor); return 0; }
int cudnnSetRNNDataDescriptor(struct sequence *of, int type, int layout, int steps, int samples,
                              int width, const int lengths[], void *padding) {
    *of = (struct sequence){steps, samples};
    return 0;
}

static size_t output_width(const struct layers *of) {
    return of->projected && of->projected != of->hidden ? of->projected : of->hidden;
}
/* Columns of the matrices that read the layer's input, or its own last output. */
static size_t columns(const struct layers *of, int pseudo_layer, int is_recurrent) {
    if (is_recurrent) return output_width(of);
    return pseudo_layer < of->directions ? of->inputs : output_width(of) * of->directions;
}
static size_t matrices(const struct layers *of, int pseudo_layer) {
    size_t gate = of->hidden * (columns(of, pseudo_layer, 0) + columns(of, pseudo_layer, 1));
    size_t projection = output_width(of) < of->hidden ? output_width(of) * of->hidden : 0;
    return GATES[of->cell] * gate + projection;
}
/* Values before a layer's matrices: those of the layers below it. */
static size_t matrices_below(const struct layers *of, int pseudo_layer) {
    size_t values = 0;
    for (int layer = 0; layer < pseudo_layer; layer++) values += matrices(of, layer);
    return values;
}

int cudnnGetRNNWeightSpaceSize(void *handle, const struct layers *of, size_t *bytes) {
    int pseudo_layers = of->count * of->directions;
    size_t biases = (size_t)pseudo_layers * of->biases * GATES[of->cell] * of->hidden;
    *bytes = (matrices_below(of, pseudo_layers) + biases) * of->element_bytes;
    return 0;
}

static void describe(void *tensor, const struct layers *of, int rows, int width) {
    int sizes[] = {1, rows, width}, strides[] = {rows * width, width, 1};
    int type = of->element_bytes == 8 ? 1 : of->element_bytes == 4 ? 0 : 2;
    int (*set)(void *, int, int, const int *, const int *) =
        memfit_real("cudnnSetTensorNdDescriptor");
    set(tensor, type, 3, sizes, strides);
}

/* PyTorch asks for a matrix or for a bias; what it does not want is NULL. */
int cudnnGetRNNWeightParams(void *handle, const struct layers *of, int pseudo_layer, size_t bytes,
                            const char *weights, int number, void *matrix, char **matrix_at,
                            void *bias, char **bias_at) {
    int gates = GATES[of->cell], is_recurrent = number >= gates, gate = number % gates;
    int is_projection = number == 2 * gates;
    size_t input = columns(of, pseudo_layer, 0), own = columns(of, pseudo_layer, 1);
    size_t before = matrices_below(of, pseudo_layer) +
                    (is_projection  ? gates * of->hidden * (input + own)
                     : is_recurrent ? gates * of->hidden * input + gate * of->hidden * own
                                    : gate * of->hidden * input);
    int has_matrix = !is_projection || output_width(of) < of->hidden;
    int has_bias = !is_projection && is_recurrent < of->biases;
    if (matrix && has_matrix)
        describe(matrix, of, is_projection ? output_width(of) : of->hidden,
                 is_projection ? of->hidden : is_recurrent ? own : input);
    if (matrix_at) *matrix_at = has_matrix ? (char *)weights + before * of->element_bytes : NULL;
    size_t below = matrices_below(of, of->count * of->directions) +
                   ((size_t)pseudo_layer * of->biases + is_recurrent) * gates * of->hidden;
    if (bias && has_bias) describe(bias, of, of->hidden, 1);
    if (bias_at)
        *bias_at = has_bias ? (char *)weights + (below + gate * of->hidden) * of->element_bytes
                            : NULL;
    return 0;
}

int cudnnGetRNNTempSpaceSizes(void *handle, const struct layers *of, int is_training,
                              const struct sequence *read, size_t *workspace, size_t *reserve) {
    size_t units = (size_t)read->steps * read->samples * of->hidden * of->directions;
    if (workspace) *workspace = 0;
    if (reserve) *reserve = is_training ? units * of->count * KEPT[of->cell] * of->element_bytes : 0;
    return 0;
}
int cudnnDropoutGetStatesSize(void *handle, size_t *bytes) { *bytes = 0; return 0; }
