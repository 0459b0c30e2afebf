using System.Globalization;
using Vmm.Interop;

namespace Vmm.Machine.Resources;

/// <summary>
/// Variables of firmware that no file keeps: they live as long as this object, over the resets of a guest that goes on in one process.
/// </summary>
public sealed class MemoryVariables : IDisposable
{
    private FileDescriptorHandle? _file;

    /// <summary>A descriptor of them; the first time they begin as the template has them.</summary>
    /// <exception cref="IOException">The template cannot be read.</exception>
    /// <exception cref="UnauthorizedAccessException">Nor may it be.</exception>
    public FileDescriptorHandle Open(string template)
    {
        _file ??= MemoryFile.Create("vmm:variables", File.ReadAllBytes(template));
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{_file.Number}");
        return BlockFile.Open(path, writable: true, direct: false);
    }

    /// <inheritdoc/>
    public void Dispose() => _file?.Dispose();
}
