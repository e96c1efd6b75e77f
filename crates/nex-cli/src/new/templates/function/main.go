// Called with each message on its trigger: standard input is the payload, standard output the reply, standard error the log.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"strings"
)

func greeting(name string) string {
	if name == "" {
		name = "world"
	}
	return fmt.Sprintf("Hello, %s!", name)
}

func main() {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(greeting(strings.TrimSpace(string(payload))))
}
