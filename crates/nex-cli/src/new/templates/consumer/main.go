// Called with each message of the stream until it has dealt with it: success acknowledges, an exit code other than 0 has it tried again
// after a pause, and what fails for good is kept: nex dead ls. Standard input is the message, standard error the log.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
)

type order struct {
	ID *int `json:"id"`
}

func handle(message []byte) error {
	var o order
	if err := json.Unmarshal(message, &o); err != nil {
		return fmt.Errorf("this is no order: %w", err)
	}
	if o.ID == nil {
		return fmt.Errorf("an order has a whole number 'id'")
	}
	log.Printf("order %d is done", *o.ID)
	return nil
}

func main() {
	message, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	if err := handle(message); err != nil {
		log.Fatal(err)
	}
}
