using Microsoft.Win32.SafeHandles;

namespace Vmm.Worker;

/// <summary>How much of this process is resident. Made before anything is given up: afterwards /proc may be out of reach.</summary>
internal sealed class ResidentMemory : IDisposable
{
    private const int PageSize = 4096;

    private readonly SafeFileHandle _statm = File.OpenHandle("/proc/self/statm");

    /// <summary>Bytes now; 0 when the kernel does not say.</summary>
    internal long Bytes
    {
        get
        {
            Span<byte> text = stackalloc byte[256];
            int length = RandomAccess.Read(_statm, text, 0);
            int space = text[..length].IndexOf((byte)' ');
            return System.Buffers.Text.Utf8Parser.TryParse(text[(space + 1)..length], out long pages, out _) ? pages * PageSize : 0;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _statm.Dispose();
}
