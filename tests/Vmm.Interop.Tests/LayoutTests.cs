using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Reflection.Emit;
using System.Runtime.CompilerServices;
using System.Text;
using Vmm.Interop.Kvm;

namespace Vmm.Interop.Tests;

/// <summary>
/// Every kernel struct and number of Vmm.Interop.Kvm is written out as _Static_assert lines, which gcc checks against linux/kvm.h.
/// </summary>
public sealed class LayoutTests
{
    [Fact]
    public void Structs_and_numbers_equal_the_kernel_headers()
    {
        string source = MakeSource(shift: 0, out int asserts);
        (int code, string output) = Compile(source);
        Assert.True(code == 0, output);
        Assert.True(asserts > 300, $"only {asserts} assertions were made");
    }

    [Fact]
    public void The_check_notices_a_wrong_offset()
    {
        (int code, string output) = Compile(MakeSource(shift: 1, out _));
        Assert.NotEqual(0, code);
        Assert.Contains("static assertion failed", output, StringComparison.Ordinal);
    }

    private static string MakeSource(int shift, out int asserts)
    {
        StringBuilder c = new("#include <stddef.h>\n#include <linux/kvm.h>\n");
        int count = 0;
        foreach (Type type in typeof(KernelNameAttribute).Assembly
            .GetTypes()
            .Where(t => t.IsValueType && !t.IsEnum && t.GetCustomAttribute<KernelNameAttribute>() is not null))
        {
            string name = "struct " + type.GetCustomAttribute<KernelNameAttribute>()!.Name;
            int size = SizeOf(type);
            c.AppendLine(CultureInfo.InvariantCulture, $"_Static_assert(sizeof({name}) == {size}, \"{name}\");");
            count++;
            foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic))
            {
                string member = field.GetCustomAttribute<KernelNameAttribute>()?.Name ?? SnakeCase(field.Name);
                c.AppendLine(CultureInfo.InvariantCulture,
                    $"_Static_assert(offsetof({name}, {member}) == {OffsetOf(type, field) + shift}, \"{name}.{member}\");");
                c.AppendLine(CultureInfo.InvariantCulture, $"_Static_assert(sizeof((({name} *)0)->{member}) "
                    + $"{(member.EndsWith(']') ? "<=" : "==")} {SizeOf(field.FieldType)}, \"size of {name}.{member}\");");
                count += 2;
            }
        }

        foreach (KvmRequest request in Enum.GetValues<KvmRequest>())
        {
            c.AppendLine(CultureInfo.InvariantCulture, $"_Static_assert({request} == {(uint)request}u, \"{request}\");");
            count++;
        }

        foreach (FieldInfo member in typeof(KvmCapability).GetFields(BindingFlags.Public | BindingFlags.Static))
        {
            string name = member.GetCustomAttribute<KernelNameAttribute>()!.Name;
            c.AppendLine(CultureInfo.InvariantCulture, $"_Static_assert({name} == {(int)member.GetRawConstantValue()!}, \"{name}\");");
            count++;
        }

        asserts = count;
        return c.ToString();
    }

    private static string SnakeCase(string name)
    {
        StringBuilder snake = new();
        foreach (char letter in name)
        {
            if (char.IsUpper(letter) && snake.Length > 0)
            {
                snake.Append('_');
            }

            snake.Append(char.ToLowerInvariant(letter));
        }

        return snake.ToString();
    }

    private static int SizeOf(Type type) =>
        (int)typeof(Unsafe).GetMethod(nameof(Unsafe.SizeOf))!.MakeGenericMethod(type).Invoke(null, null)!;

    /// <summary>The managed offset, as the runtime lays the struct out: address of the field minus address of the struct.</summary>
    private static long OffsetOf(Type type, FieldInfo field)
    {
        DynamicMethod method = new("offset", typeof(long), [type.MakeByRefType()], typeof(LayoutTests).Module, skipVisibility: true);
        ILGenerator il = method.GetILGenerator();
        il.Emit(OpCodes.Ldarg_0);
        il.Emit(OpCodes.Ldflda, field);
        il.Emit(OpCodes.Conv_U8);
        il.Emit(OpCodes.Ldarg_0);
        il.Emit(OpCodes.Conv_U8);
        il.Emit(OpCodes.Sub);
        il.Emit(OpCodes.Ret);
        return (long)method.Invoke(null, [Activator.CreateInstance(type)])!;
    }

    private static (int Code, string Output) Compile(string source)
    {
        ProcessStartInfo start = new("gcc", ["-std=gnu11", "-fsyntax-only", "-x", "c", "-"])
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardError = true
        };
        using Process gcc = Process.Start(start)!;
        Task<string> errors = gcc.StandardError.ReadToEndAsync();
        gcc.StandardInput.Write(source);
        gcc.StandardInput.Close();
        Assert.True(gcc.WaitForExit(60_000));
        return (gcc.ExitCode, errors.Result);
    }
}
