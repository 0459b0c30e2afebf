namespace Vmm.Devices.Acpi;

/// <summary>
/// Bytes appended one behind the other. The framework's ArrayBufferWriter does the same through an interface and extension methods whose
/// loading takes a millisecond of every start.
/// </summary>
internal sealed class ByteSink
{
    private byte[] _bytes = new byte[256];

    /// <summary>Bytes written so far.</summary>
    internal int Count { get; private set; }

    /// <summary>What was written; valid until the next write.</summary>
    internal ReadOnlySpan<byte> Written => _bytes.AsSpan(0, Count);

    internal byte[] ToArray()
    {
        byte[] bytes = new byte[Count];
        Array.Copy(_bytes, bytes, Count);
        return bytes;
    }

    internal void Add(byte value) => Room(1)[0] = value;

    internal void Add(ReadOnlySpan<byte> bytes) => bytes.CopyTo(Room(bytes.Length));

    /// <summary>
    /// Appends text that is ASCII by the specification's own rules (signatures, ids, names); anything else becomes a question mark.
    /// </summary>
    internal void AddAscii(string text)
    {
        Span<byte> room = Room(text.Length);
        for (int i = 0; i < text.Length; i++)
        {
            room[i] = text[i] <= '\x7F' ? (byte)text[i] : (byte)'?';
        }
    }

    /// <summary>Appends this many zeros.</summary>
    internal void AddZeros(int count) => Room(count).Clear();

    private Span<byte> Room(int count)
    {
        if (_bytes.Length - Count < count)
        {
            Array.Resize(ref _bytes, Math.Max(_bytes.Length * 2, Count + count));
        }

        Count += count;
        return _bytes.AsSpan(Count - count, count);
    }
}
