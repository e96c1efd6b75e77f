// Called with each message of the stream until it has dealt with it: status 0 acknowledges, another one has it tried again after a pause,
// and what fails for good is kept: nex dead ls. Standard input is the message, standard error the log.
#include <stdio.h>

int main(void) {
    char order[4096];
    size_t length = fread(order, 1, sizeof order - 1, stdin);
    order[length] = '\0';
    if (order[0] != '{') {
        fprintf(stderr, "this is no order: %s\n", order);
        return 1;
    }
    fprintf(stderr, "done: %s\n", order);
    return 0;
}
