package caller

import (
	"encoding/binary"
	"math"
)

const (
	sampleRate = 48_000
	loudness   = 0.25 // of full scale
)

// tone is a WAV file (RIFF, 16-bit PCM, mono) of one second of a sine of hz
// hertz. It has whole periods, so that it can be repeated without a click.
func tone(hz int) []byte {
	const (
		bytesPerSample = 2
		size           = sampleRate * bytesPerSample
	)
	var b []byte
	le := binary.LittleEndian
	b = append(b, "RIFF"...)
	b = le.AppendUint32(b, 36+size)
	b = append(b, "WAVEfmt "...)
	b = le.AppendUint32(b, 16)
	b = le.AppendUint16(b, 1) // PCM
	b = le.AppendUint16(b, 1) // channels
	b = le.AppendUint32(b, sampleRate)
	b = le.AppendUint32(b, sampleRate*bytesPerSample)
	b = le.AppendUint16(b, bytesPerSample)
	b = le.AppendUint16(b, 8*bytesPerSample)
	b = append(b, "data"...)
	b = le.AppendUint32(b, size)
	for i := range sampleRate {
		v := loudness * math.MaxInt16 * math.Sin(2*math.Pi*float64(hz*i%sampleRate)/sampleRate)
		b = le.AppendUint16(b, uint16(int16(math.Round(v))))
	}
	return b
}
