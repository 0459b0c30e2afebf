namespace Vmm.Interop;

/// <summary>Which file it is, whatever it is called: the same for two paths and descriptors of one file, statx(2).</summary>
/// <param name="Major">Of the device that holds the file; of a device node, of the device that it names.</param>
/// <param name="Minor">As <paramref name="Major"/>.</param>
/// <param name="Inode">Its number there; 0 for a device.</param>
public readonly record struct FileIdentity(uint Major, uint Minor, ulong Inode);
