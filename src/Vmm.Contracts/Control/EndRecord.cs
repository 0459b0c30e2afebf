using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace Vmm.Contracts.Control;

/// <summary>
/// The file <c>ID.end</c>, in which a worker leaves how its VM ended for a daemon that is not there at that moment. vmmd makes it in its
/// full size, so that there is room for the record whenever it comes; the worker maps it and closes it, so that it cannot make it longer.
/// Eight bytes, the magic number and the length, both little-endian, then JSON. They are written last and at once: a record is there whole
/// or not at all.
/// </summary>
public static class EndRecord
{
    /// <summary>Bytes of the file.</summary>
    public const int Length = 64 * 1024;

    private const uint Magic = 0x31444E45; // "END1"
    private const int HeaderLength = 8;

    /// <summary>Writes the record, without its report when it does not fit, and with a shorter message when that is not enough.</summary>
    /// <param name="file">The mapped file.</param>
    /// <param name="exit">How it ended.</param>
    public static void Write(Span<byte> file, WorkerExit exit)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(exit, ControlJson.Default.WorkerExit);
        if (json.Length > file.Length - HeaderLength)
        {
            const int sure = 1024; // characters, which JSON makes six bytes of at most
            string? message = exit.Message is { Length: > sure } text ? text[..sure] : exit.Message;
            json = JsonSerializer.SerializeToUtf8Bytes(exit with { Report = null, Message = message }, ControlJson.Default.WorkerExit);
        }

        json.CopyTo(file[HeaderLength..]);
        ulong header = Magic | ((ulong)json.Length << 32);
        Volatile.Write(
            ref MemoryMarshal.AsRef<ulong>(file), BitConverter.IsLittleEndian ? header : BinaryPrimitives.ReverseEndianness(header));
    }

    /// <summary>The record in a file, which a worker that was taken over may have filled with anything; null when there is none.</summary>
    public static WorkerExit? Read(ReadOnlySpan<byte> file)
    {
        if (file.Length < HeaderLength || BinaryPrimitives.ReadUInt32LittleEndian(file) != Magic)
        {
            return null;
        }

        uint length = BinaryPrimitives.ReadUInt32LittleEndian(file[4..]);
        if (length > file.Length - HeaderLength)
        {
            return null;
        }

        try
        {
            return JsonSerializer.Deserialize(file.Slice(HeaderLength, (int)length), ControlJson.Default.WorkerExit);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
