namespace Vmm.Interop;

/// <summary>What stays in C, one file for each source of native-shim.</summary>
internal static partial class Native
{
    // The whole file name: the runtime tries other spellings of a shorter one first, each a search of its own.
    internal const string Shim = "libvmmshim.so";
}
