// Called with each message on its trigger: standard input is the payload, standard output the reply, standard error the log.
#include <stdio.h>
#include <string.h>

int main(void) {
    char name[1024];
    size_t length = fread(name, 1, sizeof name - 1, stdin);
    name[length] = '\0';
    name[strcspn(name, "\r\n")] = '\0';
    printf("Hello, %s!", name[0] ? name : "world");
    return 0;
}
