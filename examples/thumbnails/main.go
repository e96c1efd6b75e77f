// A WebAssembly function that keeps small copies of the pictures in its object store. It is called with what changes there: the
// description of an object, as JSON.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg"
	"image/png"
	"io"
	"os"
	"strings"
	"unsafe"
)

// The longest side of a thumbnail, and the largest picture that is looked at, in pixels.
const (
	side      = 64
	maxPixels = 16 << 20
	prefix    = "thumbnails/"
)

//go:wasmimport nex call
func nexCall(service unsafe.Pointer, serviceLen int32, method unsafe.Pointer, methodLen int32,
	target unsafe.Pointer, targetLen int32, body unsafe.Pointer, bodyLen int32) int32

//go:wasmimport nex answer_len
func nexAnswerLen() int32

//go:wasmimport nex answer_read
func nexAnswerRead(at unsafe.Pointer)

func objects(method, name string, body []byte) ([]byte, error) {
	service := "objectstore"
	at := func(text string) (unsafe.Pointer, int32) { return unsafe.Pointer(unsafe.StringData(text)), int32(len(text)) }
	s, sLen := at(service)
	m, mLen := at(method)
	n, nLen := at(name)
	status := nexCall(s, sLen, m, mLen, n, nLen, unsafe.Pointer(unsafe.SliceData(body)), int32(len(body)))
	answer := make([]byte, nexAnswerLen())
	if len(answer) > 0 {
		nexAnswerRead(unsafe.Pointer(unsafe.SliceData(answer)))
	}
	if status != 200 {
		return nil, fmt.Errorf("%s %s: %s (%d)", method, name, answer, status)
	}
	return answer, nil
}

// Each pixel is the mean of those that it stands for.
func shrink(picture image.Image) image.Image {
	bounds := picture.Bounds()
	longest := max(bounds.Dx(), bounds.Dy())
	if longest <= side {
		return picture
	}
	width, height := max(1, bounds.Dx()*side/longest), max(1, bounds.Dy()*side/longest)
	small := image.NewRGBA64(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			left, right := bounds.Min.X+x*bounds.Dx()/width, bounds.Min.X+(x+1)*bounds.Dx()/width
			top, bottom := bounds.Min.Y+y*bounds.Dy()/height, bounds.Min.Y+(y+1)*bounds.Dy()/height
			var r, g, b, a, count uint64
			for v := top; v < bottom; v++ {
				for u := left; u < right; u++ {
					pr, pg, pb, pa := picture.At(u, v).RGBA()
					r, g, b, a, count = r+uint64(pr), g+uint64(pg), b+uint64(pb), a+uint64(pa), count+1
				}
			}
			mean := func(sum uint64) uint16 { return uint16(sum / max(1, count)) }
			small.SetRGBA64(x, y, color.RGBA64{R: mean(r), G: mean(g), B: mean(b), A: mean(a)})
		}
	}
	return small
}

func run() error {
	var changed struct {
		Name    string `json:"name"`
		Deleted bool   `json:"deleted"`
	}
	description, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(description, &changed); err != nil {
		return err
	}
	// Its own work changes the store as well.
	if changed.Deleted || strings.HasPrefix(changed.Name, prefix) {
		return nil
	}
	original, err := objects("get", changed.Name, nil)
	if err != nil {
		return err
	}
	// A small file can be a huge picture.
	config, _, err := image.DecodeConfig(bytes.NewReader(original))
	if err != nil || config.Width*config.Height > maxPixels {
		fmt.Fprintf(os.Stderr, "%s is no picture that can be shrunk: %v\n", changed.Name, err)
		return nil
	}
	picture, _, err := image.Decode(bytes.NewReader(original))
	if err != nil {
		return err
	}
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, shrink(picture)); err != nil {
		return err
	}
	_, err = objects("put", prefix+changed.Name, encoded.Bytes())
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
