// Called each time that the schedule in nex.toml comes: once, however many copies run. An exit code other than 0 has it called again
// after a pause. Standard error is the log.
package main

import (
	"log"
	"os"
)

func report(schedule string) string {
	return "run by " + schedule
}

func main() {
	log.SetFlags(0)
	log.Print(report(append(os.Args, "", "")[1]))
}
