using System.Reflection;

namespace Vmm.Memory.Tests;

/// <summary>
/// Guest memory is touched through a lease or a checked copy: nothing public gives a pointer or span of it away otherwise.
/// </summary>
public sealed class LeaseOnlyTests
{
    // Each with its reason. A new line here is a decision about the DMA filter.
    private static readonly string[] s_allowed =
    [
        "PageLease.Bytes", // the lease itself
        "PageLease.Vectors",
        "RingView.TryGetKernelAddresses", // vhost: the kernel is told where a ring lies
        "RingAddresses.Descriptors",
        "RingAddresses.Available",
        "RingAddresses.Used",
        "RingAddresses.Deconstruct",
        "GuestRegion.HostAddress", // KVM's slots and vhost's table are made of it
    ];

    [Fact]
    public void Nothing_public_gives_memory_away_but_a_lease()
    {
        List<string> found = [];
        foreach (Type type in typeof(DmaSpace).Assembly.GetExportedTypes())
        {
            const BindingFlags All = BindingFlags.Public | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;
            found.AddRange(
                type.GetMethods(All).Where(Gives).Select(m => $"{type.Name}.{m.Name.Replace("get_", "", StringComparison.Ordinal)}"));
            found.AddRange(type.GetFields(All).Where(f => IsMemory(f.FieldType)).Select(f => $"{type.Name}.{f.Name}"));
        }

        Assert.Equal([.. s_allowed.Order(StringComparer.Ordinal)], found.Distinct().Order(StringComparer.Ordinal).ToArray());
    }

    // GuestRegion is a table entry; a span of them is no memory of the guest.
    private static bool Gives(MethodInfo method) =>
        IsMemory(method.ReturnType) || method.GetParameters().Any(p => p.IsOut && IsMemory(p.ParameterType.GetElementType()!));

    private static bool IsMemory(Type type)
    {
        Type of = type.IsByRef ? type.GetElementType()! : type;
        return of.IsPointer || of == typeof(nint) || of == typeof(nuint) || of == typeof(RingAddresses)
            || (of.IsGenericType
                && (of.GetGenericTypeDefinition() == typeof(Span<>) || of.GetGenericTypeDefinition() == typeof(ReadOnlySpan<>)
                    || of.GetGenericTypeDefinition() == typeof(Memory<>)) && of.GetGenericArguments()[0] is { } item
                && (item == typeof(byte) || item.Name == "IoVector"));
    }
}
