using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>What a part of an operation is for.</summary>
internal enum PartKind : byte
{
    /// <summary>Moves payload between guest memory and a place that has it.</summary>
    Transfer,

    /// <summary>Writes payload into clusters that get it now, and then publishes them.</summary>
    Allocate,

    /// <summary>Reads a slice of an L2 table.</summary>
    Load,

    /// <summary>Reads the bytes of a compressed cluster.</summary>
    Compressed,

    /// <summary>Makes the file stable.</summary>
    Flush,
}

/// <summary>One request to the file of an image. Pooled by a node: made once, used again and again.</summary>
internal sealed class Part : IDisposable
{
    // Made with the part: one that is needed late in the life of a node must not allocate then.
    private NativeArray<IoVector> _vectors = new(8);

    internal Part(Qcow2Node node, int token) => Request = new BlockRequest(node, token);

    /// <summary>The request to the file.</summary>
    internal BlockRequest Request { get; }

    /// <summary>What it is for.</summary>
    internal PartKind Kind { get; set; }

    /// <summary>The operation it is a part of; null while it loads a slice.</summary>
    internal GuestOperation? Operation { get; set; }

    /// <summary>The slice that is loaded, or whose entries an allocation changes.</summary>
    internal L2Slot? Slot { get; set; }

    /// <summary>What <see cref="TableWrites"/> said when it began to load.</summary>
    internal long TablesBefore { get; set; }

    /// <summary>The image whose file it is.</summary>
    internal int Layer { get; set; }

    /// <summary>What an allocation does.</summary>
    internal WritePlan Plan;

    /// <summary>Operations that wait for the clusters of an allocation.</summary>
    internal OperationList Waiters;

    /// <summary>What an allocation copies around its payload.</summary>
    internal FillBuffer? Fill { get; set; }

    /// <summary>How the readings of an allocation went.</summary>
    internal DiskStatus FillStatus { get; set; }

    /// <summary>Readings of an allocation that are not over.</summary>
    internal int Fills { get; set; }

    /// <summary>Vectors of its own, for so many pieces of memory.</summary>
    internal Span<IoVector> Vectors(int count)
    {
        if (_vectors.Length < count)
        {
            _vectors.Dispose();
            _vectors = new NativeArray<IoVector>(2 * count);
        }

        return _vectors.Span[..count];
    }

    /// <summary>Begins as a part of an operation, or of none.</summary>
    internal void Begin(GuestOperation? operation, PartKind kind, int layer)
    {
        (Operation, Kind, Layer) = (operation, kind, layer);
        if (operation is not null)
        {
            operation.Parts++;
        }
    }

    public void Dispose() => _vectors.Dispose();
}

/// <summary>Memory for what an allocation copies: one cluster. Pooled by a node.</summary>
internal sealed class FillBuffer(int bytes) : IDisposable
{
    private readonly NativeArray<byte> _bytes = new(bytes, 4096);
    private readonly NativeArray<IoVector> _vectors = new(2);

    /// <summary>Address of a byte.</summary>
    internal nint AddressOf(int index) => _bytes.AddressOf(index);

    /// <summary>Sets the vector of the head (0) or the tail (1) to a range of the memory; the vector's address.</summary>
    internal nint SetVector(int which, int from, int length)
    {
        _vectors.Span[which] = new IoVector(_bytes.AddressOf(from), (nuint)length);
        return _vectors.AddressOf(which);
    }

    public void Dispose()
    {
        _bytes.Dispose();
        _vectors.Dispose();
    }
}
