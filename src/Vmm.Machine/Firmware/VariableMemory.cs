using Vmm.Devices.Firmware;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Machine.Firmware;

/// <summary>
/// The variables of a machine's firmware in memory: the file that keeps them, mapped, or memory of this process alone. While the flash
/// shows its array the guest reads them through a memory slot that it cannot write.
/// </summary>
internal sealed class VariableMemory : IFlashMemory, IDisposable
{
    private readonly SharedFileMapping? _file;
    private readonly AnonymousMapping? _memory;
    private readonly int _length;
    private MemoryMapOwner? _map;
    private GuestAddress _at;

    /// <summary>Maps the file that keeps them.</summary>
    /// <param name="file">May be closed afterwards by whoever needs no lock on it.</param>
    /// <param name="length">Bytes, whole blocks.</param>
    internal VariableMemory(FileDescriptorHandle file, int length) =>
        (_file, _length) = (new SharedFileMapping(file, (ulong)length), length);

    /// <summary>Variables that nobody keeps.</summary>
    internal VariableMemory(ReadOnlySpan<byte> begin)
    {
        (_memory, _length) = (new AnonymousMapping((ulong)begin.Length), begin.Length);
        begin.CopyTo(Bytes);
    }

    /// <inheritdoc/>
    public Span<byte> Bytes => _file is not null ? _file.Bytes : _memory!.Slice(0, _length);

    private nint Address => _file is not null ? _file.Address : _memory!.Address;

    /// <inheritdoc/>
    public void Show(bool array)
    {
        if (array)
        {
            _map!.AddMapping(new GuestRegion(_at, new ByteSize((ulong)_length), Address), isReadOnly: true);
        }
        else
        {
            _map!.RemoveMapping(_at);
        }
    }

    /// <summary>Puts them before the guest.</summary>
    internal void Attach(MemoryMapOwner map, GuestAddress at)
    {
        (_map, _at) = (map, at);
        Show(array: true);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _file?.Dispose();
        _memory?.Dispose();
    }
}
