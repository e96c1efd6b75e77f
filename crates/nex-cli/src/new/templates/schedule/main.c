// Called each time that the schedule in nex.toml comes: once, however many copies run. A status other than 0 has it called again after a
// pause. Standard error is the log.
#include <stdio.h>

int main(int count, char **arguments) {
    fprintf(stderr, "run by %s\n", count > 1 ? arguments[1] : "hand");
    return 0;
}
