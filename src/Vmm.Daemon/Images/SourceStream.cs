using System.Security.Cryptography;
using Vmm.Interop;

namespace Vmm.Daemon.Images;

/// <summary>Reads a file that was opened by the rule of storage folders once, from its begin to its end, and takes its SHA-256.</summary>
/// <param name="file">The file; it stays the caller's.</param>
/// <param name="length">Its bytes.</param>
/// <param name="cancellation">Ends the reading.</param>
internal sealed class SourceStream(FileDescriptorHandle file, ulong length, CancellationToken cancellation) : Stream
{
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private ulong _at;

    /// <summary>How much of it was read, 0 to 1.</summary>
    internal double Progress => length == 0 ? 1 : Math.Min(1, (double)Volatile.Read(ref _at) / length);

    /// <summary>SHA-256 of what was read, hexadecimal.</summary>
    internal string Sha256 => Convert.ToHexStringLower(_hash.GetCurrentHash());

    /// <inheritdoc/>
    public override bool CanRead => true;

    /// <inheritdoc/>
    public override bool CanSeek => false;

    /// <inheritdoc/>
    public override bool CanWrite => false;

    /// <inheritdoc/>
    public override long Length => (long)length;

    /// <inheritdoc/>
    public override long Position
    {
        get => (long)_at;
        set => throw new NotSupportedException();
    }

    /// <inheritdoc/>
    /// <exception cref="OperationCanceledException">The import was given up.</exception>
    /// <exception cref="IOException">The host cannot read the file.</exception>
    public override int Read(Span<byte> buffer)
    {
        cancellation.ThrowIfCancellationRequested();
        try
        {
            int read = BlockFile.ReadAt(file, buffer, _at);
            _hash.AppendData(buffer[..read]);
            Volatile.Write(ref _at, _at + (uint)read);
            return read;
        }
        catch (KernelException cause)
        {
            throw new IOException(cause.Message, cause);
        }
    }

    /// <inheritdoc/>
    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    /// <summary>Reads what an unpacker left: the checksum is of the whole file.</summary>
    internal void ReadToEnd()
    {
        byte[] rest = new byte[1 << 20];
        while (Read(rest) > 0)
        {
            // only the checksum is wanted
        }
    }

    /// <inheritdoc/>
    public override void Flush()
    {
    }

    /// <inheritdoc/>
    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void SetLength(long value) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _hash.Dispose();
        }

        base.Dispose(disposing);
    }
}
