using Vmm.Devices.Firmware;
using Vmm.Interop;
using Vmm.Machine.Boot;
using Vmm.Machine.Resources;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Firmware;

/// <summary>
/// The firmware's code and variables, opened and read before anything is built, and where the guest finds them: code ends at 4 GiB, where
/// the first instruction of a processor is, and the variables end where it begins.
/// </summary>
internal sealed class FirmwareImages : IDisposable
{
    private const ulong End = 4UL << 30;
    private const ulong MostBytes = 8 << 20;

    private readonly AnonymousMapping _code;
    private readonly FileDescriptorHandle? _file; // for its lock

    /// <exception cref="BootException">The firmware cannot be used.</exception>
    internal FirmwareImages(BootSpec spec, IMachineResources resources)
    {
        using BootFile code = resources.OpenFirmware(spec);
        CheckLength(code.Name, code.Length);
        _code = new AnonymousMapping(code.Length);
        try
        {
            code.Read(0, _code.Slice(0, (int)code.Length), "code");
            _file = resources.OpenVariables(spec);
            Variables = _file is null ? FromTemplate(resources.OpenVariableTemplate(spec)) : FromFile(spec.Variables, _file);
        }
        catch
        {
            _file?.Dispose();
            _code.Dispose();
            throw;
        }
    }

    /// <summary>The variables.</summary>
    internal VariableMemory Variables { get; }

    /// <summary>Where the guest finds the variables.</summary>
    internal GuestAddress VariablesStart => new(End - _code.Length - (ulong)Variables.Bytes.Length);

    /// <summary>Puts both before the guest.</summary>
    internal void Attach(MemoryMapOwner map)
    {
        map.AddMapping(new GuestRegion(new GuestAddress(End - _code.Length), new ByteSize(_code.Length), _code.Address), isReadOnly: true);
        Variables.Attach(map, VariablesStart);
    }

    /// <summary>The variables' file may be somebody else's from now on; nothing is written until <see cref="TryLockAgain"/>.</summary>
    /// <exception cref="KernelException">The kernel could not.</exception>
    internal void Unlock()
    {
        if (_file is not null)
        {
            BlockFile.Unlock(_file, 0, 0);
        }
    }

    /// <summary>False: somebody else uses the file now.</summary>
    /// <exception cref="KernelException">The kernel could not.</exception>
    internal bool TryLockAgain() => _file is null || BlockFile.TryLock(_file, exclusive: true);

    /// <inheritdoc/>
    public void Dispose()
    {
        Variables.Dispose();
        _file?.Dispose();
        _code.Dispose();
    }

    private static VariableMemory FromTemplate(BootFile template)
    {
        using (template)
        {
            CheckLength(template.Name, template.Length);
            byte[] begin = new byte[template.Length];
            template.Read(0, begin, "variables");
            return new VariableMemory(begin);
        }
    }

    private static VariableMemory FromFile(string? path, FileDescriptorHandle file)
    {
        ulong length = BlockFile.Inspect(file).Size;
        CheckLength(path ?? "the firmware's variables", length);
        return new VariableMemory(file, (int)length);
    }

    private static void CheckLength(string name, ulong length)
    {
        if (length is 0 or > MostBytes || length % CfiFlash.BlockBytes != 0)
        {
            throw new BootException(
                name, "length", null, $"{length} bytes, expected whole blocks of {CfiFlash.BlockBytes}, {MostBytes} at most");
        }
    }
}
